//! Many requests of one job: a few at once, their events in the order of the requests.

use super::{Engine, Events, Request, SubmitError};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a full queue is left alone between two tries, whatever it advises.
const WAIT_MIN: Duration = Duration::from_millis(10);
const WAIT_MAX: Duration = Duration::from_secs(1);

impl Engine {
    /// Has at most `window` of the requests inside at once and hands each one's events to `take`, in order, with what
    /// came beside it. Waits while the queue is full: clients go first. The first error, of a request or of `take`, ends
    /// the work. Blocks: for threads outside the async runtime.
    pub fn run_in_order<T, E: From<SubmitError>>(
        &self,
        window: usize,
        requests: impl IntoIterator<Item = Result<(Request, T), E>>,
        mut take: impl FnMut(Events, T) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut requests = requests.into_iter();
        let mut inside: VecDeque<(Events, T)> = VecDeque::new();
        loop {
            while inside.len() < window
                && let Some(next) = requests.next()
            {
                let (request, beside) = next?;
                inside.push_back((self.submit_waiting(request)?, beside));
            }
            let Some((events, beside)) = inside.pop_front() else { return Ok(()) };
            take(events, beside)?;
        }
    }

    fn submit_waiting(&self, request: Request) -> Result<Events, SubmitError> {
        loop {
            match self.submit(request.clone()) {
                Err(SubmitError::Full { retry_after, .. }) => {
                    std::thread::sleep(retry_after.clamp(WAIT_MIN, WAIT_MAX));
                }
                other => return other,
            }
        }
    }
}
