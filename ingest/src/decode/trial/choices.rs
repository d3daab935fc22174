//! Messages of a schema that differ in one thing each: all the ways that a value can be there, one at a time.

/// Messages of one trial. What lies beyond is not tried.
const EXAMPLES_MAX: usize = 2000;

/// The choices that are made while one message is written: those that it is told, then the first of each.
#[derive(Debug, Default)]
pub(in crate::decode) struct Choices {
    told: Vec<usize>,
    made: Vec<Made>,
}

#[derive(Debug)]
struct Made {
    options: usize,
    chosen: usize,
    /// The choices behind it that are made because of it end here.
    end: usize,
}

impl Choices {
    /// One of so many.
    pub(in crate::decode) fn choose(&mut self, options: usize) -> usize {
        self.open(options).1
    }

    /// The same where what is chosen has choices of its own, up to [`Self::close`] of the place.
    pub(in crate::decode) fn open(&mut self, options: usize) -> (usize, usize) {
        let place = self.made.len();
        let chosen = self.told.get(place).copied().unwrap_or(0).min(options.saturating_sub(1));
        self.made.push(Made { options, chosen, end: place + 1 });
        (place, chosen)
    }

    pub(in crate::decode) fn close(&mut self, place: usize) {
        self.made[place].end = self.made.len();
    }
}

/// What `make` gives with the first of all choices, then with each other one of them, and in what that brings with each of its own.
pub(in crate::decode) fn examples<T>(
    mut make: impl FnMut(&mut Choices) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut made = Vec::new();
    // What is told, and where choices begin that are still to be made otherwise.
    let mut waiting: Vec<(Vec<usize>, bool)> = vec![(Vec::new(), true)];
    let mut next = 0;
    while let Some((told, is_first)) = waiting.get(next).cloned() {
        next += 1;
        let from = told.len();
        let mut choices = Choices { told, made: Vec::new() };
        made.push(make(&mut choices)?);
        let until = match from.checked_sub(1).and_then(|last| choices.made.get(last)) {
            Some(last) => last.end,
            None if is_first => choices.made.len(),
            None => from,
        };
        for at in from..until {
            for other in (0..choices.made[at].options).filter(|other| *other != choices.made[at].chosen) {
                if waiting.len() >= EXAMPLES_MAX {
                    break;
                }
                let before = choices.made[..at].iter().map(|made| made.chosen);
                waiting.push((before.chain([other]).collect(), false));
            }
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_choice_is_made_otherwise_once() {
        let mut seen = examples(|choices| {
            let first = choices.choose(3);
            let (place, branch) = choices.open(2);
            let inner = if branch == 1 { choices.choose(2) + 1 } else { 0 };
            choices.close(place);
            Ok((first, branch, inner, choices.choose(2)))
        })
        .unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [(0, 0, 0, 0), (0, 0, 0, 1), (0, 1, 1, 0), (0, 1, 2, 0), (1, 0, 0, 0), (2, 0, 0, 0)]);
        let many = examples(|choices| Ok((0..5000).map(|_| choices.choose(2)).sum::<usize>())).unwrap();
        assert_eq!(many.len(), EXAMPLES_MAX);
    }
}
