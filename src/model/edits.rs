//! Edits: everything the model knows of steering - numbers to add at hook points, with the rows they apply to.

use super::rows::Rows;
use crate::digest::{Digest, Digester};
use crate::kernels::{self, Cpu};
use std::sync::Arc;

/// Which part of a sequence a row belongs to. Set by the engine from token counts, never from chunk offsets, so that
/// prefill in pieces and decoding apply the same edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A soft-prompt row or a prompt token other than the last.
    Prompt,
    /// Response row `i`. Row 0 is the **last prompt token**, which predicts the first reply token.
    Response(u32),
}

/// The rows an edit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowRule {
    /// Every row (llama.cpp's and repeng's rule).
    All,
    /// Every prompt row but the last.
    Prompt,
    /// The last prompt row and all after it.
    Response,
    /// The first `n` response rows; `First(1)` is the last prompt token.
    First(u32),
    /// Response rows from the `n`-th on.
    After(u32),
}

impl RowRule {
    pub fn applies(self, phase: Phase) -> bool {
        match (self, phase) {
            (RowRule::All, _) => true,
            (RowRule::Prompt, Phase::Prompt) => true,
            (RowRule::Response, Phase::Response(_)) => true,
            (RowRule::First(n), Phase::Response(i)) => i < n,
            (RowRule::After(n), Phase::Response(i)) => i >= n,
            _ => false,
        }
    }

    fn code(self) -> [u8; 5] {
        let (tag, n) = match self {
            RowRule::All => (0, 0),
            RowRule::Prompt => (1, 0),
            RowRule::Response => (2, 0),
            RowRule::First(n) => (3, n),
            RowRule::After(n) => (4, n),
        };
        let mut code = [tag; 5];
        code[1..].copy_from_slice(&n.to_le_bytes());
        code
    }
}

/// What an edit does to the row `h` (`[d_model]`) at its hook point.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// `h += delta`; the coefficient is already multiplied in. `[d_model]`.
    Add { delta: Arc<[f32]> },
    /// `h += ((keep - 1) * (h . unit) + target) * unit`: ablation (`keep` 0) and clamp (`keep` 0, `target` the level).
    Project { unit: Arc<[f32]>, keep: f32, target: f32 },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    pub change: Change,
    pub rows: RowRule,
    digest: Digest,
    /// Digest of the change alone: plans that differ only in rows not concerned share cached rows.
    change_digest: Digest,
}

impl Edit {
    pub fn new(change: Change, rows: RowRule) -> Edit {
        let mut digester = Digester::new("demeanor.change/1");
        match &change {
            Change::Add { delta } => digester.part(b"add").floats(delta),
            Change::Project { unit, keep, target } => {
                digester.part(b"project").floats(unit).floats(&[*keep, *target])
            }
        };
        let change_digest = digester.finish();
        let mut digester = Digester::new("demeanor.edit/1");
        digester.part(&change_digest.0).part(&rows.code());
        Edit { change, rows, digest: digester.finish(), change_digest }
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// Edits of one block. Each list is sorted by digest: edits of one place are summed in that order (bitwise rule 6).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockEdits {
    /// At `attn[l]`: what attention adds to the residual stream, after any post-norm.
    pub attn: Vec<Edit>,
    /// At `resid[l]`: the residual stream after block l.
    pub resid: Vec<Edit>,
}

/// All edits of a request. `blocks` is empty (no edits) or has one entry per block of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edits {
    pub blocks: Vec<BlockEdits>,
    digest: Digest,
}

impl Edits {
    /// No edits; its digest is all zeros.
    pub fn none() -> Edits {
        Edits::default()
    }

    /// Sorts the lists and computes the digest. Blocks without any edit everywhere give [`Edits::none`].
    pub fn new(mut blocks: Vec<BlockEdits>) -> Edits {
        if blocks.iter().all(|block| block.attn.is_empty() && block.resid.is_empty()) {
            return Edits::none();
        }
        let mut digester = Digester::new("demeanor.edits/1");
        for (index, block) in blocks.iter_mut().enumerate() {
            for (name, list) in [("attn", &mut block.attn), ("resid", &mut block.resid)] {
                list.sort_by_key(Edit::digest);
                for edit in list.iter() {
                    digester.part(name.as_bytes()).part(&(index as u64).to_le_bytes()).part(&edit.digest.0);
                }
            }
        }
        Edits { blocks, digest: digester.finish() }
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Identifies the edits; zero for none.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Identifies the edits in force on rows of one phase; zero when none is. Part of the prefix-cache key (rule 8).
    pub fn digest_in_force(&self, phase: Phase) -> Digest {
        let mut digester = Digester::new("demeanor.edits-in-force/1");
        let mut any = false;
        for (index, block) in self.blocks.iter().enumerate() {
            for (name, list) in [("attn", &block.attn), ("resid", &block.resid)] {
                for edit in list.iter().filter(|edit| edit.rows.applies(phase)) {
                    any = true;
                    digester
                        .part(name.as_bytes())
                        .part(&(index as u64).to_le_bytes())
                        .part(&edit.change_digest.0);
                }
            }
        }
        if any { digester.finish() } else { Digest::default() }
    }

    /// The first response row after `i` that may have other edits in force than `i` has; `u32::MAX` if none may.
    pub fn same_until(&self, i: u32) -> u32 {
        let edits = self.blocks.iter().flat_map(|block| block.attn.iter().chain(&block.resid));
        let borders = edits.filter_map(|edit| match edit.rows {
            RowRule::First(n) | RowRule::After(n) => Some(n),
            RowRule::All | RowRule::Prompt | RowRule::Response => None,
        });
        borders.filter(|n| *n > i).min().unwrap_or(u32::MAX)
    }
}

/// Hook points where edits apply.
#[derive(Clone, Copy)]
pub(super) enum Hook {
    Attn,
    Resid,
}

impl Hook {
    const ALL: [Hook; 2] = [Hook::Attn, Hook::Resid];

    fn of(self, block: &BlockEdits) -> &[Edit] {
        match self {
            Hook::Attn => &block.attn,
            Hook::Resid => &block.resid,
        }
    }
}

/// A [`Change`] where its numbers stand.
#[derive(Clone, Copy)]
pub(super) enum InForce<'a> {
    Add { delta: &'a [f32] },
    Project { unit: &'a [f32], keep: f32, target: f32 },
}

/// The edits in force on each row of a step, looked up once: each look on the way through the blocks would wait for memory.
pub(super) struct StepEdits<'a> {
    list: Vec<InForce<'a>>,
    /// Where those of `[block][hook][row]` end in `list`; empty when no row has any.
    ends: Vec<u32>,
    rows: usize,
}

impl<'a> StepEdits<'a> {
    pub fn new(rows: &Rows<'a>, n_blocks: usize) -> StepEdits<'a> {
        let mut found = StepEdits { list: Vec::new(), ends: Vec::new(), rows: rows.rows.len() };
        if rows.slots.iter().all(|slot| slot.edits.is_empty()) {
            return found;
        }
        found.ends.reserve(n_blocks * Hook::ALL.len() * found.rows);
        for l in 0..n_blocks {
            for hook in Hook::ALL {
                for row in rows.rows {
                    let block = rows.slots[row.slot as usize].edits.blocks.get(l);
                    let edits = block.map_or(&[][..], |block| hook.of(block));
                    let in_force = edits.iter().filter(|edit| edit.rows.applies(row.phase));
                    found.list.extend(in_force.map(|edit| InForce::from(&edit.change)));
                    found.ends.push(found.list.len() as u32);
                }
            }
        }
        found
    }

    /// Those at one hook point of block `l` on a row, in the order of their digests.
    pub fn at(&self, l: usize, hook: Hook, row: usize) -> &[InForce<'a>] {
        let index = (l * Hook::ALL.len() + hook as usize) * self.rows + row;
        let Some(end) = self.ends.get(index) else { return &[] };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.list[start as usize..*end as usize]
    }
}

impl<'a> From<&'a Change> for InForce<'a> {
    fn from(change: &'a Change) -> InForce<'a> {
        match change {
            Change::Add { delta } => InForce::Add { delta },
            Change::Project { unit, keep, target } => InForce::Project { unit, keep: *keep, target: *target },
        }
    }
}

/// Applies edits to `h`, `[d_model]`. Projections are read from the incoming `h`, then all changes are added in order.
pub(super) fn apply(cpu: &Cpu, edits: &[InForce], h: &mut [f32]) {
    // (keep - 1) * (h . u) + target for each projection, read before anything changes.
    let mut strengths = edits
        .iter()
        .filter_map(|edit| match edit {
            InForce::Add { .. } => None,
            InForce::Project { unit, keep, target } => {
                Some((keep - 1.0) * kernels::dot(cpu, h, unit) + target)
            }
        })
        .collect::<Vec<f32>>()
        .into_iter();
    for edit in edits {
        match edit {
            InForce::Add { delta } => kernels::add_row(cpu.isa, h, delta),
            InForce::Project { unit, .. } => kernels::axpy(h, strengths.next().unwrap_or(0.0), unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(value: f32, rows: RowRule) -> Edit {
        Edit::new(Change::Add { delta: Arc::from(vec![value; 4]) }, rows)
    }

    fn edits(list: Vec<Edit>) -> Edits {
        Edits::new(vec![BlockEdits::default(), BlockEdits { attn: vec![], resid: list }])
    }

    #[test]
    fn order_given_does_not_matter() {
        let (a, b) = (add(1.0, RowRule::All), add(2.0, RowRule::All));
        assert_eq!(edits(vec![a.clone(), b.clone()]), edits(vec![b, a]));
    }

    #[test]
    fn response_edits_leave_prompt_rows_plain() {
        let edits = edits(vec![add(1.0, RowRule::Response)]);
        assert_eq!(edits.digest_in_force(Phase::Prompt), Digest::default());
        assert_ne!(edits.digest_in_force(Phase::Response(0)), Digest::default());
    }

    #[test]
    fn row_rules_count_response_rows() {
        assert!(RowRule::First(1).applies(Phase::Response(0)));
        assert!(!RowRule::First(1).applies(Phase::Response(1)));
        assert!(!RowRule::First(1).applies(Phase::Prompt));
        assert!(RowRule::After(2).applies(Phase::Response(2)));
        assert!(!RowRule::After(2).applies(Phase::Response(1)));
        assert!(!RowRule::Response.applies(Phase::Prompt));
    }

    #[test]
    fn edits_are_the_same_until_a_rule_begins_or_ends() {
        use RowRule::*;
        let cases: [(&[RowRule], &[u32]); 8] = [
            (&[], &[]),
            (&[All, Prompt, Response], &[]),
            (&[First(0), After(0)], &[]),
            (&[First(1)], &[1]),
            (&[After(5)], &[5]),
            (&[All, First(3), After(7)], &[3, 7]),
            (&[After(4), First(4), First(9), Response], &[4, 9]),
            (&[First(2), First(2), After(11), Prompt], &[2, 11]),
        ];
        for (rules, borders) in cases {
            let edit = |(index, rule): (usize, &RowRule)| add(index as f32 + 1.0, *rule);
            let edits = edits(rules.iter().enumerate().map(edit).collect());
            for i in 0..20 {
                let until = edits.same_until(i);
                assert_eq!(until, borders.iter().copied().find(|n| *n > i).unwrap_or(u32::MAX));
                let digest = |i: u32| edits.digest_in_force(Phase::Response(i));
                assert!((i..until.min(20)).all(|other| digest(other) == digest(i)), "{rules:?} from row {i}");
                assert!(until == u32::MAX || digest(until) != digest(i), "{rules:?} from row {i}");
            }
        }
    }

    #[test]
    fn nothing_to_do_is_none() {
        assert!(Edits::new(vec![BlockEdits::default(); 3]).is_empty());
        assert_eq!(Edits::none().digest(), Digest::default());
    }
}
