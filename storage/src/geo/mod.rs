//! Places on Earth: how far they are from each other, areas, and the cells that cover these.
//!
//! A place is a latitude of -90 to 90 degrees and a longitude of -180 to 180; everything else is nowhere, in no area and at no distance.

mod cover;

pub use cover::{Cells, Frame, code, cover};

/// Metres; the Earth is a ball of its mean radius.
pub const EARTH_RADIUS: f64 = 6_371_008.8;

/// Some of the Earth.
#[derive(Clone, Debug, PartialEq)]
pub enum Area {
    /// The places that are not further from the middle.
    Circle {
        lat: f64,
        lng: f64,
        metres: f64,
    },
    Polygon(Polygon),
    Any(Vec<Area>),
}

/// What lies within an odd number of rings, whose sides are straight in degrees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Polygon {
    /// Latitude and longitude of each corner; the last is joined to the first.
    pub rings: Vec<Vec<(f64, f64)>>,
}

pub fn is_place(lat: f64, lng: f64) -> bool {
    lat.abs() <= 90.0 && lng.abs() <= 180.0
}

/// Metres along the great circle; `None` from or to nowhere.
pub fn distance(lat1: f64, lng1: f64, lat2: f64, lng2: f64) -> Option<f64> {
    if !is_place(lat1, lng1) || !is_place(lat2, lng2) {
        return None;
    }
    let half = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
    let share = half(lat1, lat2) + lat1.to_radians().cos() * lat2.to_radians().cos() * half(lng1, lng2);
    Some(2.0 * EARTH_RADIUS * share.clamp(0.0, 1.0).sqrt().asin())
}

impl Area {
    /// Frames that hold all of its places, wider than it by so many degrees.
    pub fn frames(&self, wider: f64) -> Vec<Frame> {
        cover::frames(self).into_iter().map(|frame| cover::padded(frame, wider)).collect()
    }

    pub fn contains(&self, lat: f64, lng: f64) -> bool {
        match self {
            Self::Circle { lat: middle, lng: of, metres } => {
                distance(*middle, *of, lat, lng).is_some_and(|distance| distance <= *metres)
            }
            Self::Polygon(polygon) => polygon.contains(lat, lng),
            Self::Any(areas) => areas.iter().any(|area| area.contains(lat, lng)),
        }
    }
}

impl Polygon {
    pub fn contains(&self, lat: f64, lng: f64) -> bool {
        if !is_place(lat, lng) {
            return false;
        }
        let mut inside = false;
        for ((lat1, lng1), (lat2, lng2)) in self.sides() {
            // Corners at the latitude belong to the side above.
            if (lat1 > lat) != (lat2 > lat) && lng < (lng2 - lng1) * (lat - lat1) / (lat2 - lat1) + lng1 {
                inside = !inside;
            }
        }
        inside
    }

    fn sides(&self) -> impl Iterator<Item = ((f64, f64), (f64, f64))> + '_ {
        self.rings.iter().flat_map(|ring| ring.iter().copied().zip(ring.iter().copied().cycle().skip(1)))
    }
}
