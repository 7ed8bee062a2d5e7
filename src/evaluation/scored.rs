//! Score requests through the engine, many at once, answers in order.

use crate::engine::{Engine, Event, Events, Request, SequenceError, SubmitError};

/// Prompts that are in the engine at once.
const WINDOW: usize = 64;

/// Log-probability (natural log) of each continuation of each request, summed over its tokens.
pub fn scored<E>(engine: &Engine, requests: Vec<Request>) -> Result<Vec<Vec<f64>>, E>
where
    E: From<SubmitError> + From<SequenceError>,
{
    let mut scores = Vec::with_capacity(requests.len());
    engine.run_in_order(
        WINDOW,
        requests.into_iter().map(|request| Ok((request, ()))),
        |mut events, ()| {
            scores.push(score(&mut events)?);
            Ok::<(), E>(())
        },
    )?;
    Ok(scores)
}

/// The same for requests that share a beginning and use the cache: the first alone, so that the others find there what they
/// share with it.
pub fn scored_after_the_first<E>(engine: &Engine, mut requests: Vec<Request>) -> Result<Vec<Vec<f64>>, E>
where
    E: From<SubmitError> + From<SequenceError>,
{
    let alone = usize::from(requests.first().is_some_and(|request| request.use_cache));
    let others = requests.split_off(alone);
    let mut scores = scored::<E>(engine, requests)?;
    scores.extend(scored::<E>(engine, others)?);
    Ok(scores)
}

/// Waits for one request's scores.
pub fn score(events: &mut Events) -> Result<Vec<f64>, SequenceError> {
    let mut sums = Vec::new();
    while let Some(event) = events.next_blocking() {
        match event {
            Event::Scored(scored) => {
                let sum = |tokens: &Vec<f32>| tokens.iter().map(|value| f64::from(*value)).sum::<f64>();
                sums = scored.iter().map(sum).collect();
            }
            Event::Failed(error) => return Err(error),
            _ => {}
        }
    }
    Ok(sums)
}
