//! COPY … TO STDOUT: batches become chunks of bytes.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::{BufMut, Bytes, BytesMut};

use super::{
    binary::SIGNATURE,
    options::{Format, Options},
};
use crate::session::{
    error::Result,
    value::encode::{ColumnEncoder, Format as ValueFormat, Style},
};

/// Writes the rows of a result.
pub struct CopyWriter {
    options: Options,
    schema: SchemaRef,
    style: Style,
    force_quote: Vec<bool>,
}

impl CopyWriter {
    pub fn new(options: Options, schema: SchemaRef, style: Style) -> Self {
        let force_quote = schema.fields().iter().map(|field| options.force_quote.covers(field.name())).collect();
        Self { options, schema, style, force_quote }
    }

    pub fn is_binary(&self) -> bool {
        self.options.format == Format::Binary
    }

    /// What stands before the rows.
    pub fn header(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self.options.format {
            Format::Binary => {
                out.put_slice(SIGNATURE);
                out.put_u64(0);
            }
            _ if self.options.header => {
                for (index, field) in self.schema.fields().iter().enumerate() {
                    if index > 0 {
                        out.put_u8(self.options.delimiter);
                    }
                    match self.options.format {
                        Format::Csv => {
                            self.csv(field.name().as_bytes(), false, self.schema.fields().len() == 1, &mut out)
                        }
                        _ => self.escaped(field.name().as_bytes(), &mut out),
                    }
                }
                out.put_u8(b'\n');
            }
            _ => {}
        }
        out.freeze()
    }

    /// The rows of a batch; each is given to `each` as bytes of its own (one CopyData message a row, as PostgreSQL sends them).
    pub fn rows(&self, batch: &RecordBatch, mut each: impl FnMut(&[u8])) -> Result<()> {
        let encoders = self
            .schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| ColumnEncoder::new(field, column, self.style))
            .collect::<Result<Vec<_>>>()?;
        let mut out = BytesMut::new();
        let mut value = BytesMut::new();
        for row in 0..batch.num_rows() {
            out.clear();
            if self.is_binary() {
                out.put_i16(encoders.len() as i16);
                for encoder in &encoders {
                    encoder.write_field(ValueFormat::Binary, row, &mut out)?;
                }
                each(&out);
                continue;
            }
            for (index, encoder) in encoders.iter().enumerate() {
                if index > 0 {
                    out.put_u8(self.options.delimiter);
                }
                if encoder.is_null(row) {
                    out.put_slice(self.options.null.as_bytes());
                    continue;
                }
                value.clear();
                encoder.write(ValueFormat::Text, row, &mut value)?;
                match self.options.format {
                    Format::Csv => self.csv(&value, self.force_quote[index], encoders.len() == 1, &mut out),
                    _ => self.escaped(&value, &mut out),
                }
            }
            out.put_u8(b'\n');
            each(&out);
        }
        Ok(())
    }

    /// What stands after the rows.
    pub fn trailer(&self) -> Bytes {
        match self.options.format {
            Format::Binary => Bytes::from_static(&[0xff, 0xff]),
            _ => Bytes::new(),
        }
    }

    fn escaped(&self, value: &[u8], out: &mut BytesMut) {
        for byte in value {
            let letter = match byte {
                b'\\' => b'\\',
                8 => b'b',
                12 => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                11 => b'v',
                byte if *byte == self.options.delimiter => *byte,
                byte => {
                    out.put_u8(*byte);
                    continue;
                }
            };
            out.put_slice(&[b'\\', letter]);
        }
    }

    fn csv(&self, value: &[u8], force: bool, only_column: bool, out: &mut BytesMut) {
        let Options { quote, escape, delimiter, .. } = self.options;
        let quoted = force
            || value == self.options.null.as_bytes()
            // Alone on its line it would read as the end of the data.
            || (only_column && value == b"\\.")
            || value.iter().any(|byte| [quote, delimiter, b'\n', b'\r'].contains(byte));
        if !quoted {
            return out.put_slice(value);
        }
        out.put_u8(quote);
        for byte in value {
            if *byte == quote || *byte == escape {
                out.put_u8(escape);
            }
            out.put_u8(*byte);
        }
        out.put_u8(quote);
    }
}
