//! Text as bytes and back: `convert_to`, `convert_from`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BinaryViewArray, StringViewArray},
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use super::simple::{Call, Returns, Simple, any};
use crate::SqlError;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        Simple::udf("convert_to", any(2, Immutable), Returns::Type(DataType::BinaryView), |call| {
            check_encodings(call)?;
            let texts = call.text(0)?;
            Ok(Arc::new(texts.iter().map(|text| text.map(str::as_bytes)).collect::<BinaryViewArray>()))
        }),
        Simple::udf("convert_from", any(2, Immutable), Returns::Type(DataType::Utf8View), |call| {
            check_encodings(call)?;
            let bytes = call.cast(0, &DataType::BinaryView)?;
            let texts = bytes.as_binary_view().iter().map(|bytes| bytes.map(read).transpose());
            let texts: ArrayRef = Arc::new(texts.collect::<Result<StringViewArray, SqlError>>()?);
            Ok(texts)
        }),
    ]
}

fn read(bytes: &[u8]) -> Result<String, SqlError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| {
        let first = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        SqlError::new("22021", format!("invalid byte sequence for encoding \"UTF8\": 0x{first:02x}"))
    })
}

fn check_encodings(call: &Call<'_>) -> Result<(), DataFusionError> {
    for name in call.text(1)?.iter().flatten() {
        if !["utf8", "utf-8", "unicode"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Err(SqlError::not_supported(format!("encoding \"{name}\"")).with_hint("Use UTF8.").into());
        }
    }
    Ok(())
}
