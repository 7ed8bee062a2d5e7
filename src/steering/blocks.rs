//! A set of blocks as people write it: `[8..16]`, `[3]`, `[1,4..6]`.

use std::fmt;

/// Blocks (0-based), kept as inclusive ranges, ascending, with a gap between any two. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSet {
    ranges: Vec<(u32, u32)>,
}

impl BlockSet {
    /// Unites inclusive ranges; `None` when there is none or one runs backwards.
    pub fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Option<BlockSet> {
        if ranges.is_empty() || ranges.iter().any(|(first, last)| first > last) {
            return None;
        }
        ranges.sort_unstable();
        let mut united: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match united.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                _ => united.push((first, last)),
            }
        }
        Some(BlockSet { ranges: united })
    }

    /// The set of single blocks; `None` when there is none.
    pub fn from_list(blocks: &[u32]) -> Option<BlockSet> {
        BlockSet::from_ranges(blocks.iter().map(|&block| (block, block)).collect())
    }

    pub fn contains(&self, block: u32) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&block))
    }

    pub fn first(&self) -> u32 {
        self.ranges[0].0
    }

    pub fn last(&self) -> u32 {
        self.ranges[self.ranges.len() - 1].1
    }

    /// Every block of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| first..=last)
    }
}

impl fmt::Display for BlockSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{first}")?;
            if first != last {
                write!(f, "..{last}")?;
            }
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_united() {
        for (ranges, text) in [
            (vec![(8, 16)], "[8..16]"),
            (vec![(3, 3)], "[3]"),
            (vec![(4, 5), (1, 1), (6, 6)], "[1,4..6]"),
            (vec![(1, 9), (2, 3)], "[1..9]"),
            (vec![(0, u32::MAX), (7, 7)], "[0..4294967295]"),
        ] {
            assert_eq!(BlockSet::from_ranges(ranges).unwrap().to_string(), text);
        }
        assert_eq!(BlockSet::from_ranges(vec![]), None);
        assert_eq!(BlockSet::from_ranges(vec![(3, 2)]), None);
    }

    #[test]
    fn members() {
        let set = BlockSet::from_list(&[5, 1, 6]).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [1, 5, 6]);
        assert!(set.contains(5) && !set.contains(2));
        assert_eq!((set.first(), set.last()), (1, 6));
    }
}
