//! A user's function as DataFusion calls it.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    compute::{CastOptions, cast_with_options},
    datatypes::DataType as ArrowType,
};
use datafusion::{
    common::{DataFusionError, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};

use super::UserFunction;
use crate::functions::session::SessionFacts;

/// A function in a plan.
#[derive(Debug)]
pub(super) struct Called {
    function: Arc<UserFunction>,
    signature: Signature,
}

impl Called {
    pub(super) fn udf(function: &Arc<UserFunction>, volatility: Volatility) -> ScalarUDF {
        let types: Vec<ArrowType> =
            function.declaration().arguments.iter().map(|(_, data_type)| data_type.arrow()).collect();
        // Whole numbers in a statement are BIGINT, others DOUBLE PRECISION; one that an INT cannot hold is out of range when it is passed.
        let wide = |data_type: &ArrowType| match data_type {
            ArrowType::Int16 | ArrowType::Int32 => ArrowType::Int64,
            ArrowType::Float32 => ArrowType::Float64,
            other => other.clone(),
        };
        let widened: Vec<ArrowType> = types.iter().map(wide).collect();
        let types = match types.is_empty() {
            true => TypeSignature::Nullary,
            false if types == widened => TypeSignature::Exact(types),
            false => TypeSignature::OneOf(vec![TypeSignature::Exact(types), TypeSignature::Exact(widened)]),
        };
        ScalarUDF::new_from_impl(Self { function: Arc::clone(function), signature: Signature::new(types, volatility) })
    }
}

impl PartialEq for Called {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.function, &other.function) && self.signature.volatility == other.signature.volatility
    }
}

impl Eq for Called {}

impl Hash for Called {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for Called {
    fn name(&self) -> &str {
        &self.function.declaration().name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType, DataFusionError> {
        Ok(self.function.declaration().returns.arrow())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let is_constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let declared = self.function.declaration().arguments.iter();
        let exact = CastOptions { safe: false, ..CastOptions::default() };
        let arrays = args.args.into_iter().zip(declared).map(|(argument, (_, data_type))| {
            let array = argument.into_array(rows)?;
            match data_type.arrow() {
                wanted if wanted == *array.data_type() => Ok(array),
                wanted => Ok(cast_with_options(&array, &wanted, &exact)?),
            }
        });
        let arrays = arrays.collect::<Result<Vec<_>, DataFusionError>>()?;
        let facts = args.config_options.extensions.get::<SessionFacts>();
        let stop = facts.map(|facts| facts.stop.clone()).unwrap_or_default();
        let made = self.function.call(&arrays, rows, &stop)?;
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }

    /// Called after constants were evaluated: what is still a function of constants has failed. It is not tried again in each round of the optimizer, which might take
    /// a second each time, but when the statement runs.
    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult, DataFusionError> {
        let has_failed = self.signature.volatility == Volatility::Immutable
            && args.iter().all(|argument| matches!(argument, Expr::Literal(..)));
        match has_failed {
            true => Ok(ExprSimplifyResult::Simplified(Self::udf(&self.function, Volatility::Volatile).call(args))),
            false => Ok(ExprSimplifyResult::Original(args)),
        }
    }
}
