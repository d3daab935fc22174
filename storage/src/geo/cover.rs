//! Cells: the Earth in degrees, cut into four again and again.
//!
//! ```text
//!  ┌────┬────┐      a cell's number is the path to it, two bits a level: north or south, east or west;
//!  │ 10 │ 11 │      the cells inside another are one range of numbers
//!  ├────┼────┤
//!  │ 00 │ 01 │
//!  └────┴────┘
//! ```
//!
//! Cells lie in each other exactly, so that what covers an area misses none of its places; hexagons do not.

use std::ops::RangeInclusive;

use super::{Area, EARTH_RADIUS, Polygon, is_place};

/// Levels: the smallest cells are 19 m high.
const LEVELS: u32 = 20;
/// An area is cut no finer when it takes this many cells.
const CELLS_MAX: usize = 256;
/// Degrees by which places and the sides of a cell may be off.
const SLACK: f64 = 1e-9;
/// Radians by which distances may be off: half a metre.
const SLACK_OF_CIRCLE: f64 = 1e-7;

/// Numbers of smallest cells, ascending, none beside the next.
pub type Cells = Vec<RangeInclusive<u64>>;

/// In degrees, all included.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub south: f64,
    pub north: f64,
    pub west: f64,
    pub east: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Outside,
    Inside,
    Across,
}

/// The number of the smallest cell around a place.
pub fn code(lat: f64, lng: f64) -> Option<u64> {
    let step = |share: f64| ((share * f64::from(1 << LEVELS)) as u32).min((1 << LEVELS) - 1);
    is_place(lat, lng).then(|| spread(step((lat + 90.0) / 180.0)) << 1 | spread(step((lng + 180.0) / 360.0)))
}

/// Bit `i` becomes bit `2i`.
fn spread(number: u32) -> u64 {
    let mut spread = u64::from(number);
    for (shift, kept) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        spread = (spread | spread << shift) & kept;
    }
    spread
}

/// Cells that hold every place of the area.
pub fn cover(area: &Area) -> Cells {
    let frames = frames(area);
    // Level, then how far north and east.
    let mut open = vec![(0u32, 0u32, 0u32)];
    let mut found: Cells = Vec::new();
    for _ in 0..LEVELS {
        if open.is_empty() || open.len() + found.len() > CELLS_MAX {
            break;
        }
        let mut next = Vec::with_capacity(open.len() * 2);
        for (level, y, x) in open {
            for (north, east) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let cell = (level + 1, y << 1 | north, x << 1 | east);
                match side(area, &frames, &frame(cell)) {
                    Side::Outside => {}
                    Side::Inside => found.push(numbers(cell)),
                    Side::Across => next.push(cell),
                }
            }
        }
        open = next;
    }
    found.extend(open.into_iter().map(numbers));
    found.sort_unstable_by_key(|cells| *cells.start());
    let mut merged: Cells = Vec::with_capacity(found.len());
    for cells in found {
        match merged.last_mut() {
            Some(last) if *last.end() + 1 >= *cells.start() => *last = *last.start()..=*cells.end().max(last.end()),
            _ => merged.push(cells),
        }
    }
    merged
}

fn numbers((level, y, x): (u32, u32, u32)) -> RangeInclusive<u64> {
    let shift = 2 * (LEVELS - level);
    let first = (spread(y) << 1 | spread(x)) << shift;
    first..=first + ((1u64 << shift) - 1)
}

fn frame((level, y, x): (u32, u32, u32)) -> Frame {
    let cells = f64::from(1u32 << level);
    let (height, width) = (180.0 / cells, 360.0 / cells);
    let (south, west) = (f64::from(y) * height - 90.0, f64::from(x) * width - 180.0);
    Frame { south: south - SLACK, north: south + height + SLACK, west: west - SLACK, east: west + width + SLACK }
}

/// Frames around the area: one around each polygon, one or two around a circle.
pub(super) fn frames(area: &Area) -> Vec<Frame> {
    match area {
        Area::Circle { lat, lng, metres } => around(*lat, *lng, *metres),
        Area::Polygon(polygon) => {
            let mut frame: Option<Frame> = None;
            for (lat, lng) in polygon.rings.iter().flatten() {
                let frame = frame.get_or_insert(Frame { south: *lat, north: *lat, west: *lng, east: *lng });
                frame.south = frame.south.min(*lat);
                frame.north = frame.north.max(*lat);
                frame.west = frame.west.min(*lng);
                frame.east = frame.east.max(*lng);
            }
            frame.map(|frame| padded(frame, SLACK)).into_iter().collect()
        }
        Area::Any(areas) => areas.iter().flat_map(frames).collect(),
    }
}

pub(super) fn padded(frame: Frame, by: f64) -> Frame {
    Frame { south: frame.south - by, north: frame.north + by, west: frame.west - by, east: frame.east + by }
}

fn around(lat: f64, lng: f64, metres: f64) -> Vec<Frame> {
    if !is_place(lat, lng) || metres.is_nan() || metres < 0.0 {
        return Vec::new();
    }
    let angle = metres / EARTH_RADIUS + SLACK_OF_CIRCLE;
    let (south, north) = (lat - angle.to_degrees(), lat + angle.to_degrees());
    let all = |south, north| vec![Frame { south, north, west: -180.0, east: 180.0 }];
    // With a pole in it, it has all longitudes.
    if angle >= std::f64::consts::FRAC_PI_2 || south <= -90.0 + SLACK || north >= 90.0 - SLACK {
        return all(south, north);
    }
    let width = (angle.sin() / lat.to_radians().cos()).clamp(0.0, 1.0).asin().to_degrees() + SLACK;
    let (west, east) = (lng - width, lng + width);
    if west < -180.0 {
        vec![Frame { south, north, west: -180.0, east }, Frame { south, north, west: west + 360.0, east: 180.0 }]
    } else if east > 180.0 {
        vec![Frame { south, north, west, east: 180.0 }, Frame { south, north, west: -180.0, east: east - 360.0 }]
    } else {
        vec![Frame { south, north, west, east }]
    }
}

/// Where a cell lies, at least not outside if any of it is not.
fn side(area: &Area, frames: &[Frame], cell: &Frame) -> Side {
    if !frames.iter().any(|frame| frame.touches(cell)) {
        return Side::Outside;
    }
    match area {
        // The frame is taken for the circle.
        Area::Circle { .. } => {
            if frames.iter().any(|frame| frame.holds(cell)) {
                Side::Inside
            } else {
                Side::Across
            }
        }
        Area::Polygon(polygon) => side_of_polygon(polygon, cell),
        Area::Any(areas) => {
            let mut found = Side::Outside;
            for area in areas {
                match side(area, &self::frames(area), cell) {
                    Side::Inside => return Side::Inside,
                    Side::Across => found = Side::Across,
                    Side::Outside => {}
                }
            }
            found
        }
    }
}

fn side_of_polygon(polygon: &Polygon, cell: &Frame) -> Side {
    if polygon.sides().any(|(a, b)| cell.is_crossed(a, b)) {
        return Side::Across;
    }
    // No side runs through it, so all of it is where its middle is.
    let middle =
        (cell.south.max(-90.0).midpoint(cell.north.min(90.0)), cell.west.max(-180.0).midpoint(cell.east.min(180.0)));
    if polygon.contains(middle.0, middle.1) { Side::Inside } else { Side::Outside }
}

impl Frame {
    fn touches(&self, other: &Self) -> bool {
        self.south <= other.north && other.south <= self.north && self.west <= other.east && other.west <= self.east
    }

    fn holds(&self, other: &Self) -> bool {
        self.south <= other.south && other.north <= self.north && self.west <= other.west && other.east <= self.east
    }

    /// Whether a straight line from one place to another runs through it.
    fn is_crossed(&self, (lat1, lng1): (f64, f64), (lat2, lng2): (f64, f64)) -> bool {
        let line = Self { south: lat1.min(lat2), north: lat1.max(lat2), west: lng1.min(lng2), east: lng1.max(lng2) };
        if !self.touches(&line) {
            return false;
        }
        let left = |lat: f64, lng: f64| (lng2 - lng1) * (lat - lat1) - (lat2 - lat1) * (lng - lng1);
        let corners = [
            left(self.south, self.west),
            left(self.south, self.east),
            left(self.north, self.west),
            left(self.north, self.east),
        ];
        corners.iter().any(|corner| *corner >= 0.0) && corners.iter().any(|corner| *corner <= 0.0)
    }
}
