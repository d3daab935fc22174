//! A scalar function from its parts: name, what it takes, what it gives, how.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, StringViewArray},
    compute::cast,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    config::ConfigOptions,
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
    scalar::ScalarValue,
};

use super::{session::SessionFacts, zone::Zone};

/// What a function body is given: all arguments as arrays of one length.
pub(crate) struct Call<'a> {
    pub(crate) arrays: Vec<ArrayRef>,
    pub(crate) fields: &'a [FieldRef],
    pub(crate) returns: &'a FieldRef,
    pub(crate) rows: usize,
    pub(crate) options: &'a ConfigOptions,
}

impl Call<'_> {
    /// Argument `index` as text.
    pub(crate) fn text(&self, index: usize) -> Result<StringViewArray, DataFusionError> {
        text(&self.arrays[index])
    }

    /// Argument `index` as `data_type`.
    pub(crate) fn cast(&self, index: usize, data_type: &DataType) -> Result<ArrayRef, DataFusionError> {
        Ok(cast(&self.arrays[index], data_type)?)
    }

    pub(crate) fn zone(&self) -> Result<Zone, DataFusionError> {
        Ok(Zone::of(self.options)?)
    }

    pub(crate) fn session(&self) -> Option<&SessionFacts> {
        self.options.extensions.get::<SessionFacts>()
    }
}

pub(crate) fn text(array: &ArrayRef) -> Result<StringViewArray, DataFusionError> {
    use arrow::array::AsArray;
    match array.data_type() {
        DataType::Utf8View => Ok(array.as_string_view().clone()),
        _ => Ok(cast(array, &DataType::Utf8View)?.as_string_view().clone()),
    }
}

pub(crate) type Body = fn(&Call<'_>) -> Result<ArrayRef, DataFusionError>;

#[derive(Clone)]
pub(crate) enum Returns {
    Type(DataType),
    Of(fn(&[DataType]) -> Result<DataType, DataFusionError>),
    Field(fn(&ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError>),
}

pub(crate) struct Simple {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
    returns: Returns,
    body: Body,
    /// See [`Self::tried_once`].
    tries_once: bool,
}

impl Simple {
    pub(crate) fn udf(name: &'static str, signature: Signature, returns: Returns, body: Body) -> Arc<ScalarUDF> {
        Self::aliased(name, &[], signature, returns, body)
    }

    /// One that may work long before it fails. While a statement is planned, DataFusion evaluates a function of constants in each round of its rules until it has a
    /// value; this one is tried once, and then left to the run of the statement.
    pub(crate) fn tried_once(name: &'static str, signature: Signature, returns: Returns, body: Body) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Self {
            name,
            aliases: Vec::new(),
            signature,
            returns,
            body,
            tries_once: true,
        }))
    }

    pub(crate) fn aliased(
        name: &'static str,
        aliases: &[&str],
        signature: Signature,
        returns: Returns,
        body: Body,
    ) -> Arc<ScalarUDF> {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Arc::new(ScalarUDF::new_from_impl(Self { name, aliases, signature, returns, body, tries_once: false }))
    }
}

/// Any arguments, `count` of them.
pub(crate) fn any(count: usize, volatility: Volatility) -> Signature {
    if count == 0 { Signature::nullary(volatility) } else { Signature::any(count, volatility) }
}

/// These numbers of arguments, of any types.
pub(crate) fn any_of(counts: &[usize], volatility: Volatility) -> Signature {
    use datafusion::logical_expr::TypeSignature;
    let of = |count: &usize| if *count == 0 { TypeSignature::Nullary } else { TypeSignature::Any(*count) };
    Signature::one_of(counts.iter().map(of).collect(), volatility)
}

impl fmt::Debug for Simple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Simple {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.signature.volatility == other.signature.volatility
    }
}

impl Eq for Simple {}

impl Hash for Simple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Simple {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        match &self.returns {
            Returns::Type(data_type) => Ok(data_type.clone()),
            Returns::Of(of) => of(arguments),
            Returns::Field(_) => Err(DataFusionError::Internal(format!("{} gives a field", self.name))),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
        if let Returns::Field(of) = &self.returns {
            return of(&args);
        }
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let data_type = self.return_type(&types)?;
        Ok(Arc::new(arrow::datatypes::Field::new(self.name, data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        invoke(args, self.body)
    }

    /// Called after constants were evaluated: what is still a function of constants has failed.
    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult, DataFusionError> {
        if !self.tries_once || !args.iter().all(|arg| matches!(arg, Expr::Literal(..))) {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let failed = Self {
            name: self.name,
            aliases: Vec::new(),
            signature: Signature { volatility: Volatility::Volatile, ..self.signature.clone() },
            returns: self.returns.clone(),
            body: self.body,
            tries_once: false,
        };
        Ok(ExprSimplifyResult::Simplified(ScalarUDF::new_from_impl(failed).call(args)))
    }
}

/// Runs `body` on arrays, and gives a scalar back when all arguments are scalars.
pub(crate) fn invoke(
    args: ScalarFunctionArgs,
    body: impl Fn(&Call<'_>) -> Result<ArrayRef, DataFusionError>,
) -> Result<ColumnarValue, DataFusionError> {
    let all_scalar = !args.args.is_empty() && args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let rows = if all_scalar { 1 } else { args.number_rows };
    let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>, _>>()?;
    let call =
        Call { arrays, fields: &args.arg_fields, returns: &args.return_field, rows, options: &args.config_options };
    let result = body(&call)?;
    match all_scalar {
        true => Ok(ColumnarValue::Scalar(scalar(&result)?)),
        false => Ok(ColumnarValue::Array(result)),
    }
}

/// The only value of the array. DataFusion's way forgets what the items of a list are (uuid, jsonb).
fn scalar(array: &ArrayRef) -> Result<ScalarValue, DataFusionError> {
    use arrow::array::{Array, AsArray};
    match array.data_type() {
        DataType::List(_) if array.len() == 1 => Ok(ScalarValue::List(Arc::new(array.as_list::<i32>().clone()))),
        _ => ScalarValue::try_from_array(array, 0),
    }
}
