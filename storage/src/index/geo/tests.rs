//! What the index finds of random places, against measuring each.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float64Array},
    buffer::Buffer,
};
use proptest::prelude::*;

use super::{GeoIndex, build};
use crate::{
    forward::{ColumnReader, EncodeOptions, encode_column},
    geo::{Area, Polygon, cover},
    index::source::Source,
    schema::DataType,
};

fn degrees(most: f64) -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => -most..=most,
        8 => (most / 4.0)..=(most / 4.0 + 0.5),
        2 => (most - 0.01)..=most,
        2 => -most..=(0.01 - most),
        1 => prop::sample::select(vec![0.0, -0.0, most, -most]),
    ]
}

/// What rows hold: also what is no place.
fn held(most: f64) -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        20 => degrees(most).prop_map(Some),
        1 => Just(None),
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, most + 1e-9, -most * 3.0]).prop_map(Some),
    ]
}

fn area() -> impl Strategy<Value = Area> {
    let metres = prop_oneof![0.0..100.0, 0.0..100_000.0, 0.0..25_000_000.0, Just(0.0), Just(-1.0)];
    let circle =
        (degrees(90.0), degrees(180.0), metres).prop_map(|(lat, lng, metres)| Area::Circle { lat, lng, metres });
    let ring = prop::collection::vec((degrees(90.0), degrees(180.0)), 0..6);
    let near = (degrees(89.0), degrees(179.0), prop::collection::vec((-1.0..1.0, -1.0..1.0), 3..8)).prop_map(
        |(lat, lng, corners): (f64, f64, Vec<(f64, f64)>)| {
            corners.into_iter().map(|(north, east)| (lat + north, lng + east)).collect::<Vec<_>>()
        },
    );
    let polygon =
        prop::collection::vec(prop_oneof![ring, near], 0..3).prop_map(|rings| Area::Polygon(Polygon { rings }));
    let one = prop_oneof![circle, polygon];
    prop_oneof![4 => one.clone(), 1 => prop::collection::vec(one, 0..3).prop_map(Area::Any)]
}

fn sections(places: &[(Option<f64>, Option<f64>)]) -> Vec<Vec<u8>> {
    let rows = places.len() as u32;
    let column = |values: Vec<Option<f64>>| {
        let array: ArrayRef = Arc::new(Float64Array::from(values));
        let encoded = encode_column(&DataType::Double, &[array], &EncodeOptions::default()).unwrap();
        let buffers = encoded.sections.into_iter().map(Buffer::from_vec).collect();
        ColumnReader::open(&DataType::Double, encoded.encoding as u8, rows, buffers).unwrap()
    };
    let lat = column(places.iter().map(|place| place.0).collect());
    let lng = column(places.iter().map(|place| place.1).collect());
    build(&Source::encoded(rows, &lat), &Source::encoded(rows, &lng)).unwrap()
}

fn opened(sections: Vec<Vec<u8>>, rows: usize) -> crate::Result<GeoIndex> {
    GeoIndex::open(&sections.into_iter().map(Buffer::from_vec).collect::<Vec<_>>(), rows as u32)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_place_in_an_area_is_missed(
        places in prop::collection::vec((held(90.0), held(180.0)), 0..150),
        areas in prop::collection::vec(area(), 1..8),
        from in 0u32..150,
    ) {
        let index = opened(sections(&places), places.len()).unwrap();
        for area in areas {
            let cells = cover(&area);
            prop_assert!(cells.windows(2).all(|pair| pair[0].end() + 1 < *pair[1].start()));
            let from = from.min(places.len() as u32);
            let base = from & !63;
            let found = index.list(&index.find(&cells).unwrap(), &(from..places.len() as u32), base).unwrap();
            let found: Vec<usize> = found.iter().map(|row| row + base as usize).collect();
            prop_assert!(index.find(&cells).unwrap().rows() >= found.len() as u64);
            for (row, place) in places.iter().enumerate().skip(from as usize) {
                let (Some(lat), Some(lng)) = place else { continue };
                let inside = area.contains(*lat, *lng);
                prop_assert!(!inside || found.contains(&row), "{lat} {lng} in {area:?}");
            }
        }
    }

    #[test]
    fn damaged_sections_never_panic(at in 0usize..4000, bit in 0u8..8, area in area()) {
        let places: Vec<_> = (0..50).map(|row| (Some(f64::from(row)), Some(f64::from(row * 3)))).collect();
        let mut sections = sections(&places);
        let total: usize = sections.iter().map(Vec::len).sum();
        let mut at = at % total;
        for section in &mut sections {
            match section.get_mut(at) {
                Some(byte) => {
                    *byte ^= 1 << bit;
                    break;
                }
                None => at -= section.len(),
            }
        }
        if let Ok(index) = opened(sections, places.len()) {
            let cells = cover(&area);
            if let Ok(inside) = index.find(&cells) {
                let _ = index.list(&inside, &(0..50), 0);
            }
        }
    }
}

/// Most of what is listed of a city's places around one is there.
#[test]
fn little_more_than_the_area_is_listed() {
    let steps = 300;
    let places: Vec<_> = (0..steps * steps)
        .map(|at| (Some(52.3 + f64::from(at / steps) * 0.001), Some(13.1 + f64::from(at % steps) * 0.0015)))
        .collect();
    let index = opened(sections(&places), places.len()).unwrap();
    for metres in [500.0, 2_000.0, 8_000.0] {
        let area = Area::Circle { lat: 52.45, lng: 13.32, metres };
        let inside = places.iter().filter(|place| area.contains(place.0.unwrap(), place.1.unwrap())).count() as f64;
        let listed = index.find(&cover(&area)).unwrap().rows() as f64;
        assert!(inside > 0.0 && listed < inside * 1.6, "{listed} listed for {inside} within {metres} m");
    }
}
