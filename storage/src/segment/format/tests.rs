use std::path::Path;

use super::*;
use crate::{
    ids::{ColumnId, OffsetRange, PartitionId, SchemaVersion, SegmentId, SourceId, StreamId, TableId},
    scalar::Scalar,
    schema::{Column, TableSchema},
    segment::ColumnStats,
    testing::{Random, generate},
};

/// A footer with one column of every type, and defaults and statistics of every kind of value.
fn footer() -> Footer {
    let mut random = Random::new(1);
    let mut next = HEADER_BYTES as u64;
    let (mut columns, mut footers) = (Vec::new(), Vec::new());
    for (index, data_type) in generate::every_type().into_iter().enumerate() {
        let value = generate::scalar(&mut random, &data_type);
        columns.push(Column {
            nullable: index % 3 != 0,
            default: value.clone().filter(|_| index % 2 == 0),
            ..Column::new(ColumnId(index as u32), format!("column {index} ü"), data_type)
        });
        let sections = (0..index % 4)
            .map(|at| {
                let section = Section { offset: align(next), length: (at * 37) as u64, crc: index as u32 };
                next = section.end();
                section
            })
            .collect();
        footers.push(ColumnFooter {
            encoding: index as u8,
            stats: ColumnStats {
                min: value.clone(),
                max: value,
                exact: index % 2 == 0,
                nulls: if index % 3 == 0 { 0 } else { 5 },
                distinct: (index % 2 == 1).then_some(3),
                sorted: index % 5 == 0,
            },
            sections,
        });
    }
    let stream = |partition| StreamId { source: SourceId(9), partition };
    Footer {
        table: TableId(u64::MAX),
        partition: PartitionId(2),
        id: SegmentId(3),
        created_at_us: -1,
        rows: 1000,
        time_range: Some((i64::MIN, i64::MAX)),
        offsets: vec![
            OffsetRange { stream: stream(0), from: 0, to: u64::MAX },
            OffsetRange { stream: stream(1), from: 7, to: 7 },
        ],
        schema: TableSchema { version: SchemaVersion(4), columns, time_column: Some(ColumnId(10)) },
        columns: footers,
    }
}

fn position(footer: &Footer) -> u64 {
    align(footer.columns.iter().flat_map(|column| &column.sections).map(Section::end).max().unwrap_or(64))
}

fn decode(bytes: &[u8], footer: &Footer) -> Result<Footer> {
    Footer::decode(Path::new("f"), bytes, position(footer))
}

#[test]
fn a_footer_comes_back_as_it_was() {
    let footer = footer();
    let bytes = footer.encode().unwrap();
    let back = decode(&bytes, &footer).unwrap();
    assert_eq!(back.encode().unwrap(), bytes);
    assert_eq!(format!("{back:?}"), format!("{footer:?}"));
    let none = Footer { time_range: None, offsets: Vec::new(), ..footer };
    assert_eq!(decode(&none.encode().unwrap(), &none).unwrap().offsets, []);
}

#[test]
fn a_cut_or_lengthened_footer_is_corrupt() {
    let footer = footer();
    let mut bytes = footer.encode().unwrap();
    for length in 0..bytes.len() {
        let error = decode(&bytes[..length], &footer).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{length}: {error}");
    }
    bytes.push(0);
    assert!(matches!(decode(&bytes, &footer), Err(Error::Corrupt { .. })));
}

/// No byte of a footer can make decoding panic, and whatever it accepts means what it says.
#[test]
fn a_changed_byte_is_refused_or_read_as_what_it_says() {
    let footer = footer();
    let bytes = footer.encode().unwrap();
    for at in 0..bytes.len() {
        for with in [0x01u8, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= with;
            match decode(&changed, &footer) {
                Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
                Ok(read) => assert_eq!(read.encode().unwrap(), changed, "byte {at}"),
            }
        }
    }
}

#[test]
fn sections_lie_one_after_the_other() {
    let mut footer = footer();
    let at = footer.columns.iter().position(|column| column.sections.len() > 1).unwrap();
    footer.columns[at].sections[1].offset += 64;
    let error = decode(&footer.encode().unwrap(), &footer).unwrap_err();
    assert!(error.to_string().contains("section 1"), "{error}");
}

#[test]
fn contradictions_are_corrupt() {
    type Change = fn(&mut Footer);
    let changes: [(&str, Change); 6] = [
        ("time range", |f| f.time_range = Some((2, 1))),
        ("offset range", |f| f.offsets[0] = OffsetRange { from: 2, to: 1, ..f.offsets[0] }),
        ("offset range", |f| f.offsets[1].stream = f.offsets[0].stream),
        ("id", |f| f.schema.columns[1].id = f.schema.columns[0].id),
        ("nulls", |f| f.columns[1].stats.nulls = 1001),
        ("statistics", |f| {
            f.columns[3].stats.min = Some(Scalar::Int(2));
            f.columns[3].stats.max = Some(Scalar::Int(1));
        }),
    ];
    for (what, change) in changes {
        let mut footer = footer();
        change(&mut footer);
        let error = decode(&footer.encode().unwrap(), &footer).unwrap_err();
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
}

#[test]
fn header_and_trailer_have_one_right_form() {
    let path = Path::new("f");
    assert!(check_header(path, &header()).is_ok());
    for at in 0..HEADER_BYTES {
        let mut changed = header();
        changed[at] ^= 0x80;
        assert!(matches!(check_header(path, &changed), Err(Error::Corrupt { .. })), "byte {at}");
    }
    for version in 1..=VERSION {
        let trailer = Trailer { file_bytes: 1 << 40, footer_bytes: 77, footer_crc: 0xdead_beef, version };
        assert_eq!(Trailer::decode(path, &trailer.encode()).unwrap(), trailer);
        let mut header = header();
        header[8] = version as u8;
        assert_eq!(check_header(path, &header).unwrap(), version);
    }
    for version in [0, VERSION + 1] {
        let trailer = Trailer { file_bytes: 1 << 40, footer_bytes: 77, footer_crc: 0xdead_beef, version };
        assert!(matches!(Trailer::decode(path, &trailer.encode()), Err(Error::Corrupt { .. })));
    }
    for length in 0..HEADER_BYTES + TRAILER_BYTES {
        let mut file = header().to_vec();
        file.resize(length.max(1), 0);
        assert!(matches!(read_footer(path, &file), Err(Error::Corrupt { .. })));
    }
}
