//! Decorators of Character Card V3: the lines `@@name value` that an entry's content begins with.
//!
//! Known ones are those that say when an entry is in force, and `@@position`. Unknown ones are left out with their lines,
//! as the specification has it; of a line `@@name` and the lines `@@@name` after it the first known one counts.

/// What the decorators of an entry say; `None` and empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decorators {
    pub activate: bool,
    pub dont_activate: bool,
    pub scan_depth: Option<u32>,
    pub activate_only_after: Option<u32>,
    pub activate_only_every: Option<u32>,
    /// One of each list must occur.
    pub additional_keys: Vec<Vec<String>>,
    pub exclude_keys: Vec<String>,
    /// Before the other entries.
    pub before: Option<bool>,
}

impl Decorators {
    /// Splits a content into what its first lines say and the rest.
    pub fn read(content: &str) -> (Decorators, &str) {
        let mut found = Decorators::default();
        let mut rest = content.trim_start_matches('\n');
        // Whether a line of this group counted already.
        let mut is_taken = false;
        while rest.starts_with("@@") {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            let (is_fallback, line) = match line.strip_prefix("@@@") {
                Some(line) => (true, line),
                None => (false, &line[2..]),
            };
            if !is_fallback || !is_taken {
                is_taken = found.take(line.trim());
            }
            rest = after.trim_start_matches('\n');
        }
        (found, rest)
    }

    /// Whether a decorator is known and its value makes sense. The first of a name counts.
    fn take(&mut self, line: &str) -> bool {
        let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        let number = |place: &mut Option<u32>, least: u32| {
            let number = value.parse().ok().filter(|number| *number >= least);
            *place = place.or(number);
            number.is_some()
        };
        let list = || -> Vec<String> {
            let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        match name {
            "activate" => self.activate = true,
            "dont_activate" => self.dont_activate = true,
            "scan_depth" => return number(&mut self.scan_depth, 0),
            "activate_only_after" => return number(&mut self.activate_only_after, 0),
            "activate_only_every" => return number(&mut self.activate_only_every, 1),
            "additional_keys" if !list().is_empty() => self.additional_keys.push(list()),
            "exclude_keys" if !list().is_empty() => {
                if self.exclude_keys.is_empty() {
                    self.exclude_keys = list();
                }
            }
            "position" => {
                let before = match value {
                    "before_desc" => true,
                    "after_desc" => false,
                    _ => return false,
                };
                self.before = self.before.or(Some(before));
            }
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_stripped() {
        let (found, rest) = Decorators::read("plain @@depth\n@@activate");
        assert_eq!((found, rest), (Decorators::default(), "plain @@depth\n@@activate"));

        let content = "\n@@depth 4\n@@@scan_depth 2\n@@@activate\n@@position before_desc\n@@position after_desc\n\
            @@additional_keys a, b\n@@additional_keys c\n@@exclude_keys d,,e\n@@unknown\n\nText\n@@activate";
        let (found, rest) = Decorators::read(content);
        assert_eq!(rest, "Text\n@@activate");
        let expected = Decorators {
            scan_depth: Some(2),
            before: Some(true),
            additional_keys: vec![vec!["a".into(), "b".into()], vec!["c".into()]],
            exclude_keys: vec!["d".into(), "e".into()],
            ..Decorators::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn values_that_make_no_sense_are_as_unknown_names() {
        let (found, rest) =
            Decorators::read("@@activate_only_every 0\n@@@activate_only_after 3\n@@scan_depth -1\nx");
        let expected = Decorators { activate_only_after: Some(3), ..Decorators::default() };
        assert_eq!((found, rest), (expected, "x"));
        assert_eq!(Decorators::read("@@activate").1, "");
        assert_eq!(Decorators::read("@@").1, "");
        assert_eq!(Decorators::read("@@@").1, "");
    }
}
