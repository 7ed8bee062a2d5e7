//! Pages and rows for the continuations of a score that run beside each other.

use super::Sequence;
use crate::engine::pages::Pages;
use crate::engine::request::Want;
use crate::engine::score::LaneNeed;
use crate::limits::PAGE_POSITIONS;
use crate::model::PageId;

impl Sequence {
    /// The next lane of a score that could have some of `rows` rows in the step at hand.
    pub fn next_lane(&mut self, rows: usize, lanes_max: usize) -> Option<LaneNeed> {
        match &self.request.want {
            Want::Score(continuations) => self.score.next_need(continuations, rows, lanes_max),
            _ => None,
        }
    }

    pub fn clear_lanes(&mut self) {
        self.score.clear_step();
    }

    /// Gives a lane the pages for its rows, as far as the cache has some; `copy` as in [`Sequence::adopt`]. Returns the
    /// rows that the lane has in the step, 0 when a page is missing.
    pub fn cover_lane(
        &mut self,
        need: &LaneNeed,
        cache: &mut Pages,
        mut copy: impl FnMut(PageId, PageId, usize),
    ) -> usize {
        let (rows, shared) = (self.prompt_rows(), self.shared_pages());
        let mut lane = std::mem::take(self.score.pages_mut(need.lane));
        if lane.is_empty() {
            lane.extend(&self.pages[..shared]);
        }
        while lane.len() < (rows + need.rows).div_ceil(PAGE_POSITIONS) {
            let Some(page) = cache.take(self.owner_of_page(lane.len())) else { break };
            // The rows of the prompt that do not fill a page; of later pages nothing.
            let from = self.pages.get(shared).copied().unwrap_or(page);
            copy(from, page, if lane.len() == shared { rows % PAGE_POSITIONS } else { 0 });
            lane.push(page);
        }
        let covered = lane.len() * PAGE_POSITIONS >= rows + need.rows;
        *self.score.pages_mut(need.lane) = lane;
        if covered { self.grant_lane(need) } else { 0 }
    }

    pub fn move_to_first_lane(&mut self, lane: usize) {
        self.score.move_to_first(lane);
    }

    pub fn grant_lane(&mut self, need: &LaneNeed) -> usize {
        self.score.grant(need)
    }
}
