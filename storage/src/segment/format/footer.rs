//! What a segment file says of itself: identity, schema, statistics, where its sections are.

use std::{collections::HashSet, path::Path};

use super::{
    ALIGNMENT, HEADER_BYTES, Section, align,
    bytes::{Reader, Writer},
};
use crate::{
    Error, Result,
    ids::{ColumnId, OffsetRange, PartitionId, SchemaVersion, SegmentId, SourceId, StreamId, TableId},
    scalar::Scalar,
    schema::{Column, DataType, TableSchema},
    segment::ColumnStats,
};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Footer {
    pub(crate) table: TableId,
    pub(crate) partition: PartitionId,
    pub(crate) id: SegmentId,
    pub(crate) created_at_us: i64,
    pub(crate) rows: u32,
    /// Smallest and largest value of the time column.
    pub(crate) time_range: Option<(i64, i64)>,
    pub(crate) offsets: Vec<OffsetRange>,
    pub(crate) schema: TableSchema,
    /// One for each column of the schema, in its order.
    pub(crate) columns: Vec<ColumnFooter>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnFooter {
    pub(crate) encoding: u8,
    pub(crate) stats: ColumnStats,
    pub(crate) sections: Vec<Section>,
}

impl Footer {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut w = Writer::default();
        w.u64(self.table.0);
        w.u32(self.partition.0);
        w.u64(self.id.0);
        w.i64(self.created_at_us);
        w.u32(self.rows);
        w.u32(self.schema.version.0);
        match self.schema.time_column {
            None => w.u8(0),
            Some(id) => {
                w.u8(1);
                w.u32(id.0);
            }
        }
        match self.time_range {
            None => w.u8(0),
            Some((min, max)) => {
                w.u8(1);
                w.i64(min);
                w.i64(max);
            }
        }
        w.u32(self.offsets.len() as u32);
        for range in &self.offsets {
            w.u64(range.stream.source.0);
            w.u32(range.stream.partition);
            w.u64(range.from);
            w.u64(range.to);
        }
        w.u32(self.schema.columns.len() as u32);
        for (column, footer) in self.schema.columns.iter().zip(&self.columns) {
            write_column(&mut w, column)?;
            w.u8(footer.encoding);
            write_stats(&mut w, &footer.stats)?;
            w.u16(u16::try_from(footer.sections.len()).map_err(|_| Error::Invalid("too many sections".into()))?);
            for section in &footer.sections {
                w.u64(section.offset);
                w.u64(section.length);
                w.u32(section.crc);
            }
        }
        Ok(w.out)
    }

    /// `position` is where the footer begins in the file: sections end before it.
    pub(crate) fn decode(path: &Path, bytes: &[u8], position: u64) -> Result<Self> {
        let mut r = Reader::new(path, bytes, position);
        let table = TableId(r.u64("table id")?);
        let partition = PartitionId(r.u32("partition")?);
        let id = SegmentId(r.u64("segment id")?);
        let created_at_us = r.i64("creation time")?;
        let rows = r.u32("row count")?;
        let version = SchemaVersion(r.u32("schema version")?);
        let time_column = if r.flag("time column")? { Some(ColumnId(r.u32("time column")?)) } else { None };
        let time_range = if r.flag("time range")? { Some((r.i64("time range")?, r.i64("time range")?)) } else { None };
        if let Some((min, max)) = time_range
            && min > max
        {
            return Err(r.corrupt("time range", format!("an end at or after {min}"), max));
        }
        let offsets = read_offsets(&mut r)?;
        let mut columns = Vec::new();
        let mut footers = Vec::new();
        let mut ids = HashSet::new();
        let mut next = HEADER_BYTES as u64;
        for index in 0..r.count(24, "column count")? {
            let column = read_column(&mut r, index)?;
            if !ids.insert(column.id) {
                return Err(r.corrupt(&format!("column {}, id", column.name), "an id of its own", column.id));
            }
            footers.push(read_column_footer(&mut r, &column, rows, &mut next, position)?);
            columns.push(column);
        }
        if align(next) != position {
            return Err(r.corrupt("sections", format!("the footer at byte {}", align(next)), position));
        }
        if let Some(id) = time_column
            && !columns.iter().any(|column| column.id == id && is_time(&column.data_type))
        {
            return Err(r.corrupt("time column", "a DATE or TIMESTAMP column of the schema", id));
        }
        if r.remaining() > 0 {
            return Err(r.corrupt("end", "no more bytes", format!("{} bytes", r.remaining())));
        }
        let schema = TableSchema { version, columns, time_column };
        Ok(Self { table, partition, id, created_at_us, rows, time_range, offsets, schema, columns: footers })
    }
}

fn read_offsets(r: &mut Reader<'_>) -> Result<Vec<OffsetRange>> {
    let mut offsets = Vec::new();
    let mut streams = HashSet::new();
    for _ in 0..r.count(28, "offset range count")? {
        let stream = StreamId { source: SourceId(r.u64("offset range")?), partition: r.u32("offset range")? };
        let range = OffsetRange { stream, from: r.u64("offset range")?, to: r.u64("offset range")? };
        if range.from > range.to || !streams.insert(stream) {
            return Err(r.corrupt("offset range", "from at most to, once for each stream", format!("{range:?}")));
        }
        offsets.push(range);
    }
    Ok(offsets)
}

fn read_column_footer(
    r: &mut Reader<'_>,
    column: &Column,
    rows: u32,
    next: &mut u64,
    footer_position: u64,
) -> Result<ColumnFooter> {
    let name = &column.name;
    let encoding = r.u8(&format!("column {name}, encoding"))?;
    let stats = read_stats(r, column)?;
    if stats.nulls > u64::from(rows) || (stats.nulls > 0 && !column.nullable) {
        let most = if column.nullable { rows } else { 0 };
        return Err(r.corrupt(&format!("column {name}, nulls"), format!("at most {most}"), stats.nulls));
    }
    let mut sections = Vec::new();
    for index in 0..r.u16(&format!("column {name}, section count"))? {
        let field = format!("column {name}, section {index}");
        let section = Section { offset: r.u64(&field)?, length: r.u64(&field)?, crc: r.u32(&field)? };
        // Exactly one after the other: so every byte between is padding, and no two overlap.
        if section.offset != align(*next) || !section.offset.is_multiple_of(ALIGNMENT) {
            return Err(r.corrupt(&field, format!("offset {}", align(*next)), section.offset));
        }
        if section.end() > footer_position {
            return Err(r.corrupt(&field, format!("an end at or before {footer_position}"), section.end()));
        }
        *next = section.end();
        sections.push(section);
    }
    Ok(ColumnFooter { encoding, stats, sections })
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date | DataType::Timestamp | DataType::TimestampTz)
}

fn write_column(w: &mut Writer, column: &Column) -> Result<()> {
    w.u32(column.id.0);
    w.bytes(column.name.as_bytes())?;
    write_type(w, &column.data_type);
    w.u8(u8::from(column.nullable));
    write_optional(w, column.default.as_ref())
}

fn read_column(r: &mut Reader<'_>, index: usize) -> Result<Column> {
    let id = ColumnId(r.u32(&format!("column {index}, id"))?);
    let name = r.text(&format!("column {index}, name"))?.to_owned();
    let data_type = read_type(r, &name)?;
    let nullable = r.flag(&format!("column {name}, nullable"))?;
    let default = read_optional(r, &data_type, &format!("column {name}, default"))?;
    Ok(Column { nullable, default, ..Column::new(id, name, data_type) })
}

const ARRAY: u8 = 14;

fn write_type(w: &mut Writer, data_type: &DataType) {
    w.u8(match data_type {
        DataType::Boolean => 0,
        DataType::SmallInt => 1,
        DataType::Int => 2,
        DataType::BigInt => 3,
        DataType::Real => 4,
        DataType::Double => 5,
        DataType::Numeric { .. } => 6,
        DataType::Text => 7,
        DataType::Bytea => 8,
        DataType::Date => 9,
        DataType::Timestamp => 10,
        DataType::TimestampTz => 11,
        DataType::Uuid => 12,
        DataType::Jsonb => 13,
        DataType::Array(_) => ARRAY,
    });
    match data_type {
        DataType::Numeric { precision, scale } => {
            w.u8(*precision);
            w.u8(scale.cast_unsigned());
        }
        DataType::Array(item) => write_type(w, item),
        _ => {}
    }
}

fn read_type(r: &mut Reader<'_>, name: &str) -> Result<DataType> {
    let field = format!("column {name}, type");
    match r.u8(&field)? {
        ARRAY => {
            let byte = r.u8(&field)?;
            if byte == ARRAY {
                return Err(r.corrupt(&field, "an array of a scalar type", "an array of arrays"));
            }
            Ok(DataType::Array(Box::new(scalar_type(r, byte, &field)?)))
        }
        byte => scalar_type(r, byte, &field),
    }
}

fn scalar_type(r: &mut Reader<'_>, byte: u8, field: &str) -> Result<DataType> {
    Ok(match byte {
        0 => DataType::Boolean,
        1 => DataType::SmallInt,
        2 => DataType::Int,
        3 => DataType::BigInt,
        4 => DataType::Real,
        5 => DataType::Double,
        6 => {
            let (precision, scale) = (r.u8(field)?, r.u8(field)?.cast_signed());
            if !(1..=38).contains(&precision) || scale < 0 || scale.cast_unsigned() > precision {
                return Err(r.corrupt(field, "numeric(1..38, 0..precision)", format!("numeric({precision},{scale})")));
            }
            DataType::Numeric { precision, scale }
        }
        7 => DataType::Text,
        8 => DataType::Bytea,
        9 => DataType::Date,
        10 => DataType::Timestamp,
        11 => DataType::TimestampTz,
        12 => DataType::Uuid,
        13 => DataType::Jsonb,
        other => return Err(r.corrupt(field, "a type byte from 0 to 14", other)),
    })
}

fn write_stats(w: &mut Writer, stats: &ColumnStats) -> Result<()> {
    w.u8(u8::from(stats.exact) | u8::from(stats.sorted) << 1 | u8::from(stats.distinct.is_some()) << 2);
    w.u64(stats.nulls);
    w.u64(stats.distinct.unwrap_or(0));
    write_optional(w, stats.min.as_ref())?;
    write_optional(w, stats.max.as_ref())
}

fn read_stats(r: &mut Reader<'_>, column: &Column) -> Result<ColumnStats> {
    let name = &column.name;
    let field = format!("column {name}, statistics");
    let flags = r.u8(&field)?;
    let (nulls, distinct) = (r.u64(&field)?, r.u64(&field)?);
    if flags > 7 || (flags & 4 == 0 && distinct != 0) {
        return Err(r.corrupt(&field, "flags of version 1", flags));
    }
    let min = read_optional(r, &column.data_type, &format!("column {name}, min"))?;
    let max = read_optional(r, &column.data_type, &format!("column {name}, max"))?;
    if let (Some(min), Some(max)) = (&min, &max)
        && min.compare(max).is_none_or(std::cmp::Ordering::is_gt)
    {
        return Err(r.corrupt(&field, "min at most max", format!("min {min:?}, max {max:?}")));
    }
    let distinct = (flags & 4 != 0).then_some(distinct);
    Ok(ColumnStats { min, max, exact: flags & 1 != 0, nulls, distinct, sorted: flags & 2 != 0 })
}

/// 0 for none, else a tag and the value.
fn write_optional(w: &mut Writer, value: Option<&Scalar>) -> Result<()> {
    match value {
        None => w.u8(0),
        Some(Scalar::Boolean(v)) => {
            w.u8(1);
            w.u8(u8::from(*v));
        }
        Some(Scalar::Int(v)) => {
            w.u8(2);
            w.i64(*v);
        }
        Some(Scalar::Float(v)) => {
            w.u8(3);
            w.u64(v.to_bits());
        }
        Some(Scalar::Decimal(v)) => {
            w.u8(4);
            w.i128(*v);
        }
        Some(Scalar::Text(v)) => {
            w.u8(5);
            w.bytes(v.as_bytes())?;
        }
        Some(Scalar::Bytes(v)) => {
            w.u8(6);
            w.bytes(v)?;
        }
    }
    Ok(())
}

/// A value that must be of the column's kind.
fn read_optional(r: &mut Reader<'_>, data_type: &DataType, field: &str) -> Result<Option<Scalar>> {
    let value = match r.u8(field)? {
        0 => return Ok(None),
        1 => Scalar::Boolean(r.flag(field)?),
        2 => Scalar::Int(r.i64(field)?),
        3 => Scalar::Float(f64::from_bits(r.u64(field)?)),
        4 => Scalar::Decimal(r.i128(field)?),
        5 => Scalar::Text(r.text(field)?.into()),
        6 => Scalar::Bytes(r.bytes(field)?.into()),
        other => return Err(r.corrupt(field, "a value tag from 0 to 6", other)),
    };
    let fits = match (&value, data_type) {
        (Scalar::Boolean(_), DataType::Boolean) => true,
        (Scalar::Int(v), DataType::SmallInt) => i16::try_from(*v).is_ok(),
        (Scalar::Int(v), DataType::Int | DataType::Date) => i32::try_from(*v).is_ok(),
        (Scalar::Int(_), DataType::BigInt | DataType::Timestamp | DataType::TimestampTz) => true,
        (Scalar::Float(_), DataType::Real | DataType::Double) => true,
        (Scalar::Decimal(_), DataType::Numeric { .. }) => true,
        (Scalar::Text(_), DataType::Text | DataType::Uuid | DataType::Jsonb) => true,
        (Scalar::Bytes(_), DataType::Bytea) => true,
        _ => false,
    };
    if fits {
        Ok(Some(value))
    } else {
        Err(r.corrupt(field, format!("a value of type {data_type}"), format!("{value:?}")))
    }
}
