//! Words one after the other, as PostgreSQL finds them: alternatives, conjunctions and negations inside a phrase are about places.
//!
//! `a <-> ( b | c <-> d )`: each part gives the places where it ends, and how many places it spans; these are laid upon each other. `!a` is
//! everywhere but where `a` ends.

use std::cmp::Ordering;

use super::query::{Node, WordPlaces};

/// Where a part of a phrase ends.
#[derive(Default)]
struct Ends {
    /// Ascending.
    places: Vec<u64>,
    /// Everywhere but there.
    elsewhere: bool,
    /// Places from the end of its first word to that of its last.
    width: u64,
}

/// Which of the places of two parts are kept.
#[derive(Clone, Copy)]
struct Kept {
    both: bool,
    left: bool,
    right: bool,
}

const BOTH: Kept = Kept { both: true, left: false, right: false };
const LEFT: Kept = Kept { both: false, left: true, right: false };
const RIGHT: Kept = Kept { both: false, left: false, right: true };
const ALL: Kept = Kept { both: true, left: true, right: true };

pub(super) fn is_there(phrase: &Node, places: &[WordPlaces]) -> bool {
    // What stands nowhere is beside nothing.
    places_are_known(phrase, places) && ends(phrase, places).is_some()
}

fn places_are_known(node: &Node, places: &[WordPlaces]) -> bool {
    match node {
        Node::Word(word) => places.get(*word).is_none_or(|word| !word.is_there || !word.places.is_empty()),
        Node::Not(inner) => places_are_known(inner, places),
        Node::And(parts) | Node::Or(parts) => parts.iter().all(|part| places_are_known(part, places)),
        Node::Phrase(parts) => parts.iter().all(|(_, part)| places_are_known(part, places)),
    }
}

/// `None`: nowhere.
fn ends(node: &Node, places: &[WordPlaces]) -> Option<Ends> {
    match node {
        Node::Word(word) => {
            let word = places.get(*word).filter(|word| word.is_there)?;
            Some(Ends { places: word.places.iter().map(|place| u64::from(*place)).collect(), ..Ends::default() })
        }
        Node::Not(inner) => match ends(inner, places) {
            None => Some(Ends { elsewhere: true, ..Ends::default() }),
            Some(inner) if !inner.places.is_empty() => Some(Ends { elsewhere: !inner.elsewhere, ..inner }),
            Some(_) => None,
        },
        Node::And(parts) => {
            let mut all = ends(parts.first()?, places)?;
            for part in &parts[1..] {
                let part = ends(part, places)?;
                let width = all.width.max(part.width);
                let shifts = (width - all.width, width - part.width);
                all = and(all, part, shifts, width)?;
            }
            Some(all)
        }
        Node::Or(parts) => {
            let mut any = ends(parts.first()?, places);
            for part in &parts[1..] {
                any = or(any, ends(part, places));
            }
            any
        }
        Node::Phrase(parts) => {
            let mut all = ends(&parts.first()?.1, places)?;
            for (distance, part) in &parts[1..] {
                let part = ends(part, places)?;
                let shift = u64::from(*distance) + part.width;
                let width = all.width + shift;
                all = and(all, part, (shift, 0), width)?;
            }
            Some(all)
        }
    }
}

/// Where both are, the places of each shifted.
fn and(left: Ends, right: Ends, shifts: (u64, u64), width: u64) -> Option<Ends> {
    let (kept, elsewhere) = match (left.elsewhere, right.elsewhere) {
        (true, true) => (ALL, true),
        (true, false) => (RIGHT, false),
        (false, true) => (LEFT, false),
        (false, false) => (BOTH, false),
    };
    let places = merged(&left.places, &right.places, shifts, kept);
    (elsewhere || !places.is_empty()).then_some(Ends { places, elsewhere, width })
}

/// Where one of them is.
fn or(left: Option<Ends>, right: Option<Ends>) -> Option<Ends> {
    if left.is_none() && right.is_none() {
        return None;
    }
    let (left, right) = (left.unwrap_or_default(), right.unwrap_or_default());
    let width = left.width.max(right.width);
    let (kept, elsewhere) = match (left.elsewhere, right.elsewhere) {
        (true, true) => (BOTH, true),
        // Everywhere but where only the left is not.
        (true, false) => (LEFT, true),
        (false, true) => (RIGHT, true),
        (false, false) => (ALL, false),
    };
    let places = merged(&left.places, &right.places, (width - left.width, width - right.width), kept);
    (elsewhere || !places.is_empty()).then_some(Ends { places, elsewhere, width })
}

fn merged(left: &[u64], right: &[u64], shifts: (u64, u64), kept: Kept) -> Vec<u64> {
    let (mut l, mut r, mut found) = (0, 0, Vec::new());
    while l < left.len() || r < right.len() {
        let a = left.get(l).map_or(u64::MAX, |place| place + shifts.0);
        let b = right.get(r).map_or(u64::MAX, |place| place + shifts.1);
        let (place, keep) = match a.cmp(&b) {
            Ordering::Less => (a, kept.left),
            Ordering::Equal => (a, kept.both),
            Ordering::Greater => (b, kept.right),
        };
        l += usize::from(a <= b);
        r += usize::from(b <= a);
        if keep {
            found.push(place);
        }
    }
    found
}
