//! `doc -> key` and `doc ->> key`: a text is the key of a member and never a place, a number is a place and never a key.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringArray},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility::Immutable,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
    scalar::ScalarValue,
};
use datafusion_functions_json::udfs as json;

use super::{json_field, tree::Json};
use crate::{
    SqlError,
    functions::{
        json::object_udf,
        simple::{Call, any, invoke},
    },
    rules::operators::jsonb_field,
};

/// With a key that is known, it becomes the function below it, which conditions of segments and JSON indexes know.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Member {
    shown: Shown,
    signature: Signature,
    aliases: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shown {
    Jsonb,
    Text,
}

/// `doc -> key`.
pub(crate) fn udf() -> Arc<ScalarUDF> {
    made(Shown::Jsonb, &["json_object_field", "jsonb_array_element", "json_array_element"])
}

/// `doc ->> key`.
pub(crate) fn text_udf() -> Arc<ScalarUDF> {
    made(Shown::Text, &["json_object_field_text", "jsonb_array_element_text", "json_array_element_text"])
}

fn made(shown: Shown, aliases: &[&str]) -> Arc<ScalarUDF> {
    let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    Arc::new(ScalarUDF::new_from_impl(Member { shown, signature: any(2, Immutable), aliases }))
}

impl ScalarUDFImpl for Member {
    fn name(&self) -> &str {
        match self.shown {
            Shown::Jsonb => "jsonb_object_field",
            Shown::Text => "jsonb_object_field_text",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
        let field = Field::new(self.name(), DataType::Utf8, true);
        Ok(Arc::new(match self.shown {
            Shown::Jsonb => field.with_metadata(json_field("jsonb").metadata().clone()),
            Shown::Text => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        invoke(args, |call| match self.shown {
            Shown::Jsonb => members(call, |json| Some(json.to_string())),
            Shown::Text => members(call, Json::text),
        })
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult, DataFusionError> {
        let [document, Expr::Literal(key, _)] = args.as_slice() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let Some(found) = known(document, key, self.shown) else { return Ok(ExprSimplifyResult::Original(args)) };
        Ok(ExprSimplifyResult::Simplified(match self.shown {
            Shown::Jsonb => jsonb_field(found),
            Shown::Text => found,
        }))
    }
}

/// The member of `document` with a key that is known.
fn known(document: &Expr, key: &ScalarValue, shown: Shown) -> Option<Expr> {
    let function = match shown {
        Shown::Jsonb => json::json_get_json_udf(),
        Shown::Text => json::json_as_text_udf(),
    };
    let mut document = document.clone();
    let key = match key.try_as_str() {
        Some(text) => {
            let text = text?;
            // The functions below take it for a place.
            if text.parse::<i64>().is_ok() {
                document = object_udf().call(vec![document]);
            }
            ScalarValue::Utf8View(Some(text.to_owned()))
        }
        None if key.data_type().is_integer() && !key.is_null() => key.cast_to(&DataType::Int64).ok()?,
        None => return None,
    };
    Some(function.call(vec![document, Expr::Literal(key, None)]))
}

fn members(call: &Call<'_>, show: impl Fn(&Json) -> Option<String>) -> Result<ArrayRef, DataFusionError> {
    let documents = call.text(0)?;
    let by_place = call.arrays[1].data_type().is_integer();
    let keys = call.text(1)?;
    let rows = documents.iter().zip(keys.iter()).map(|(document, key)| {
        let (Some(document), Some(key)) = (document, key) else { return Ok(None) };
        let json: Json = document.parse()?;
        let is_asked = match json {
            Json::Object(_) => !by_place,
            Json::Array(_) => by_place,
            _ => false,
        };
        Ok(json.at([key]).filter(|_| is_asked).and_then(&show))
    });
    Ok(Arc::new(rows.collect::<Result<StringArray, SqlError>>()?))
}
