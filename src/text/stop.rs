//! Stop strings in a growing text, wherever the pieces are cut.

/// Finds the first stop string to be complete; of several that end together the longest, then the first listed. Text
/// that could be the beginning of a stop string is held back.
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    hit: Option<usize>,
}

/// What one piece led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Text that belongs to the answer for certain.
    pub emit: String,
    /// Index of the stop string that ended the answer. The stop string itself is not part of the answer, nor is
    /// anything after it.
    pub hit: Option<usize>,
}

impl StopStrings {
    /// Empty strings stop nothing.
    pub fn new(stops: Vec<String>) -> StopStrings {
        StopStrings { stops, held: String::new(), hit: None }
    }

    /// After a hit nothing more is emitted; the hit is repeated.
    pub fn push(&mut self, piece: &str) -> Stopped {
        if self.hit.is_some() {
            return Stopped { emit: String::new(), hit: self.hit };
        }
        for character in piece.chars() {
            self.held.push(character);
            if let Some(index) = self.complete() {
                self.hit = Some(index);
                let mut emit = std::mem::take(&mut self.held);
                emit.truncate(emit.len() - self.stops[index].len());
                return Stopped { emit, hit: self.hit };
            }
        }
        let keep = self.beginning();
        let rest = self.held.split_off(self.held.len() - keep);
        Stopped { emit: std::mem::replace(&mut self.held, rest), hit: None }
    }

    /// The end of the text: what was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop string that the held text ends with.
    fn complete(&self) -> Option<usize> {
        let ending =
            self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty() && self.held.ends_with(*stop));
        ending.max_by_key(|(index, stop)| (stop.len(), std::cmp::Reverse(*index))).map(|(index, _)| index)
    }

    /// Length of the longest end of the held text that a stop string begins with.
    fn beginning(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        let starts = (from..self.held.len()).filter(|&at| self.held.is_char_boundary(at));
        let mut tails = starts.map(|at| &self.held[at..]);
        tails.find(|tail| self.stops.iter().any(|stop| stop.starts_with(tail))).map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All text of the answer and the hit.
    fn run(stops: &[String], pieces: &[&str]) -> (String, Option<usize>) {
        let mut stopping = StopStrings::new(stops.to_vec());
        let mut text = String::new();
        for piece in pieces {
            let stopped = stopping.push(piece);
            text += &stopped.emit;
            if stopped.hit.is_some() {
                return (text, stopped.hit);
            }
        }
        (text + &stopping.finish(), None)
    }

    /// The same on the whole text: the smallest end first.
    fn naive(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let head = &text[..end];
            let mut best: Option<usize> = None;
            for (index, stop) in stops.iter().enumerate() {
                let better = best.is_none_or(|best| stop.len() > stops[best].len());
                if !stop.is_empty() && head.ends_with(stop.as_str()) && better {
                    best = Some(index);
                }
            }
            if let Some(index) = best {
                return (head[..end - stops[index].len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    #[test]
    fn cases() {
        /// Stop strings, pieces, the answer, the hit.
        type Case = (&'static [&'static str], &'static [&'static str], &'static str, Option<usize>);
        let table: &[Case] = &[
            (&["END"], &["so E", "N", "D and more"], "so ", Some(0)),
            (&["END"], &["so E", "N"], "so EN", None),
            (&["abc", "b"], &["xab", "c"], "xa", Some(1)),
            (&["aab"], &["aaa", "ab"], "aa", Some(0)),
            (&["b", "ab"], &["ab"], "", Some(1)),
            (&["", "é!"], &["caf", "é", "!"], "caf", Some(1)),
            (&[], &["any", "thing"], "anything", None),
            (&["\n\n"], &["one\n", "two\n", "\n"], "one\ntwo", Some(0)),
        ];
        for (stops, pieces, text, hit) in table {
            let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
            assert_eq!(run(&stops, pieces), (text.to_string(), *hit), "{stops:?} {pieces:?}");
        }
    }

    #[test]
    fn only_a_possible_beginning_is_held() {
        let mut stopping = StopStrings::new(vec!["STOP".into()]);
        assert_eq!(stopping.push("a ST").emit, "a ");
        assert_eq!(stopping.push("A").emit, "STA");
        assert_eq!(stopping.push("STOP").hit, Some(0));
        assert_eq!(stopping.push("more"), Stopped { emit: String::new(), hit: Some(0) });
        assert_eq!(stopping.finish(), "");
    }

    proptest! {
        #[test]
        fn equals_a_search_on_the_whole_text(
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
            pieces in prop::collection::vec("[abé]{0,5}", 0..12),
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops, &pieces), naive(&stops, &pieces.concat()));
        }
    }
}
