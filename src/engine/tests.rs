//! An engine on a random model of two blocks: what shares a batch, the cache or a sequence changes no bit of an answer.

use super::*;
use crate::config::Backend;
use crate::kernels::Precision;
use crate::model::fixtures::{self, Reference};
use crate::model::tiny::{self, D_MODEL, N_BLOCKS, Random, VOCAB_SIZE};
use crate::model::{BlockEdits, CaptureSpec, Change, Edit, Edits, RowRule, SoftRows, TokenId};
use std::sync::atomic::Ordering::Relaxed;

impl EngineInfo {
    /// Of a model of [`tiny`].
    pub(crate) fn of_tiny(model: &Model, max_batch: usize) -> EngineInfo {
        EngineInfo {
            architecture: model.config().architecture.clone(),
            n_blocks: N_BLOCKS as u32,
            d_model: D_MODEL as u32,
            n_heads: tiny::N_HEADS as u32,
            d_head: tiny::D_HEAD as u32,
            vocab_size: VOCAB_SIZE as u32,
            embedding: Arc::default(),
            context: 2048,
            trained_context: 4096,
            parameters: model.parameters(),
            file_bytes: 0,
            weights_digest: Digest::default(),
            arithmetic: "cpu".into(),
            quantisation: "F32".into(),
            isa: "any".into(),
            threads: 1,
            max_batch,
        }
    }
}

fn engine(pages: usize) -> Engine {
    engine_with(pages, EngineOptions { max_batch: 16, queue: 64, step_budget_ms: 20.0, draft_max: 8 })
}

fn engine_with(pages: usize, options: EngineOptions) -> Engine {
    let model = tiny::load("llama", Precision::Int8, pages);
    let info = EngineInfo::of_tiny(&model, options.max_batch);
    Engine::start(model, info, options).expect("a thread starts")
}

fn tokens(seed: u64, n: usize) -> Vec<TokenId> {
    let mut random = Random(seed);
    (0..n).map(|_| random.below(VOCAB_SIZE) as TokenId).collect()
}

fn soft(seed: u64, n: usize) -> SoftRows {
    let mut random = Random(seed);
    SoftRows::new((0..n * D_MODEL).map(|_| random.value()).collect(), n, D_MODEL).expect("right sizes")
}

fn steered(seed: u64, rows: RowRule) -> Arc<Edits> {
    let mut random = Random(seed);
    let delta: Vec<f32> = (0..D_MODEL).map(|_| 0.3 * random.value()).collect();
    let mut blocks = vec![BlockEdits::default(); N_BLOCKS];
    blocks[0].resid.push(Edit::new(Change::Add { delta: delta.into() }, rows));
    Arc::new(Edits::new(blocks))
}

fn request(prompt: Vec<TokenId>, want: Want) -> Request {
    Request {
        prompt,
        soft: SoftRows::none(),
        soft_at: 0,
        edits: Arc::default(),
        want,
        priority: Priority::Serving,
        owner: Digest::default(),
        cache_salt: Digest::default(),
        use_cache: true,
    }
}

/// Draws `n` tokens and reports the distributions they came from, and those of the prompt with `of_prompt`.
fn generate(n: u32, of_prompt: bool) -> Want {
    Want::Generate(Generate {
        tokens_max: n,
        stop_tokens: Arc::from([]),
        sampling: Sampling { temperature: 0.8, seed: 5, ..Sampling::default() },
        constraint: None,
        logprobs: Some(VOCAB_SIZE as u32),
        prompt_logprobs: of_prompt.then_some(VOCAB_SIZE as u32),
    })
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    prompt: Vec<TokenLogprob>,
    tokens: Vec<TokenLogprob>,
    scored: Vec<Vec<f32>>,
    captured: Vec<Vec<f32>>,
}

/// The whole answer and its usage.
fn finish(mut events: Events) -> Result<(Answer, Usage), SequenceError> {
    let mut answer = Answer::default();
    while let Some(event) = events.next_blocking() {
        match event {
            Event::Progress { .. } => {}
            Event::Prefilled { prompt, .. } => answer.prompt = prompt,
            Event::Token { logprob, .. } => answer.tokens.extend(logprob),
            Event::Scored(scored) => answer.scored = scored,
            Event::Captured(captured) => answer.captured = captured,
            Event::Done { usage, .. } => return Ok((answer, usage)),
            Event::Failed(error) => return Err(error),
        }
    }
    panic!("the events end without an end");
}

fn run(engine: &Engine, request: Request) -> (Answer, Usage) {
    finish(engine.submit(request).expect("accepted")).expect("no failure")
}

/// The same without the cache.
fn alone(engine: &Engine, request: &Request) -> Answer {
    run(engine, Request { use_cache: false, ..request.clone() }).0
}

fn owner(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// Waits until the engine thread has put away what ended: answers come before that.
fn settle(engine: &Engine) {
    engine.owner_pages(Digest::default());
}

#[test]
fn a_second_request_computes_only_rows_that_differ() {
    let engine = engine(32);
    let shared = tokens(1, 90);
    for (at, rows) in [(0, 0), (0, 4), (1, 4), (40, 7), (90, 4)] {
        let ask = |tail: u64| Request {
            prompt: [shared.clone(), tokens(tail, 9)].concat(),
            soft: if rows == 0 { SoftRows::none() } else { soft(3, rows) },
            soft_at: at,
            owner: owner(&format!("{at}-{rows}")),
            ..request(vec![], generate(6, false))
        };
        run(&engine, ask(10));
        let (answer, usage) = run(&engine, ask(11));
        assert_eq!(usage.cached_tokens, 90, "{rows} soft rows at {at}");
        assert_eq!(answer, alone(&engine, &ask(11)), "{rows} soft rows at {at}");
        // A prompt that is there as a whole computes its last row.
        assert_eq!(run(&engine, ask(11)).1.cached_tokens, 98);
    }
}

/// Rows of the cache are as good as computed ones in every family, and the windows of attention reach back into them.
#[test]
fn a_hit_gives_the_logits_of_transformers() {
    for name in fixtures::MODELS {
        let reference = Reference::of(name);
        let width = reference.logits.len() / reference.rows.len();
        let last = &reference.logits[reference.logits.len() - width..];
        for container in &fixtures::containers(name) {
            let model = Model::load(container, &fixtures::options(Backend::Cpu, 512)).unwrap();
            let info = EngineInfo { vocab_size: width as u32, ..EngineInfo::of_tiny(&model, 2) };
            let options = EngineOptions { max_batch: 2, queue: 8, step_budget_ms: 20.0, draft_max: 0 };
            let engine = Engine::start(model, info, options).expect("a thread starts");
            let generate = Generate {
                tokens_max: 1,
                stop_tokens: Arc::from([]),
                sampling: Sampling::default(),
                logprobs: Some(width as u32),
                prompt_logprobs: None,
                constraint: None,
            };
            let ask = |prompt: &[TokenId]| request(prompt.to_vec(), Want::Generate(generate.clone()));
            run(&engine, ask(&reference.ids[..131]));
            let (answer, usage) = run(&engine, ask(&reference.ids));
            assert!(usage.cached_tokens >= 128, "{name}: {}", usage.cached_tokens);
            let normaliser = last.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
            let largest = last.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
            let top = &answer.tokens[0].top;
            assert_eq!(top.len(), width, "{name}");
            let difference = |(id, logprob): &(TokenId, f32)| {
                (f64::from(*logprob) + normaliser - f64::from(last[*id as usize])).abs() as f32
            };
            let worst = top.iter().map(difference).fold(0.0, f32::max);
            assert!(worst <= fixtures::LIMIT * largest, "{name}: {worst} of {largest}");
        }
    }
}

/// Random prompts over few beginnings, soft rows, edits and owners, all at once and twice: each as without a cache.
#[test]
fn whatever_the_cache_gives_is_what_would_have_been_computed() {
    let engine = engine(24);
    let mut random = Random(7);
    let requests: Vec<Request> = (0..48)
        .map(|_| {
            let prompt = [
                tokens(random.below(2) as u64, 1 + random.below(150)),
                tokens(10 + random.below(3) as u64, random.below(40)),
            ]
            .concat();
            let rows = random.below(3) * 3;
            let rule = [RowRule::All, RowRule::Response, RowRule::First(2)][random.below(3)];
            Request {
                soft: if rows == 0 { SoftRows::none() } else { soft(random.below(2) as u64, rows) },
                soft_at: [0, 1, prompt.len() as u32 / 2, prompt.len() as u32][random.below(4)],
                edits: if random.below(2) == 0 { Arc::default() } else { steered(1, rule) },
                owner: [Digest::default(), owner("a"), owner("b")][random.below(3)],
                prompt,
                ..request(vec![], generate(1 + random.below(70) as u32, random.below(4) == 0))
            }
        })
        .collect();
    let wanted: Vec<Answer> = requests.iter().map(|request| alone(&engine, request)).collect();
    for round in 0..2 {
        let events: Vec<_> =
            requests.iter().map(|request| engine.submit(request.clone()).expect("accepted")).collect();
        for (index, (events, wanted)) in events.into_iter().zip(&wanted).enumerate() {
            assert_eq!(&finish(events).expect("no failure").0, wanted, "round {round}, request {index}");
        }
    }
    settle(&engine);
    let stats = engine.stats();
    assert!(stats.prefix_cache_hits_tokens_total.load(Relaxed) > 1000, "{stats:?}");
    assert!(stats.preemptions_total.load(Relaxed) > 0, "{stats:?}");
    assert_eq!(stats.kv_pages_in_use.load(Relaxed), 0);
}

#[test]
fn soft_rows_change_what_follows_them_only() {
    let engine = engine(8);
    let prompt = tokens(1, 80);
    let plain = alone(&engine, &request(prompt.clone(), generate(1, true)));
    assert_eq!(plain.prompt.len(), 79);
    for at in [0, 1, 30, 64, 79, 80] {
        let with = Request { soft: soft(2, 4), soft_at: at, ..request(prompt.clone(), generate(1, true)) };
        let answer = alone(&engine, &with);
        assert_eq!(answer.prompt.len(), 79, "one per token but the first");
        // Entry i is token i + 1 given what is before it: the first to change is that of the token behind the soft rows.
        let unchanged = (at as usize).saturating_sub(1);
        assert_eq!(answer.prompt[..unchanged], plain.prompt[..unchanged], "at {at}");
        let changed = |i: usize| answer.prompt[i].logprob != plain.prompt[i].logprob;
        assert!((unchanged..79).all(changed), "at {at}");
        assert_ne!(answer.tokens, plain.tokens, "at {at}");
        let (_, usage) = run(&engine, with);
        assert_eq!((usage.prompt_tokens, usage.soft_rows), (80, 4));
    }
}

/// The context holds soft rows too, and no more of them than there is room for.
#[test]
fn soft_rows_count_as_positions() {
    let engine = engine(40);
    for (tokens_given, rows, fits) in [(2043, 4, true), (2044, 4, false), (2044, 3, true), (2048, 0, false)] {
        let soft = if rows == 0 { SoftRows::none() } else { soft(1, rows) };
        let given = Request { soft, ..request(tokens(1, tokens_given), generate(1, false)) };
        assert_eq!(engine.submit(given).is_ok(), fits, "{tokens_given} {rows}");
    }
    let misplaced = Request { soft: soft(1, 4), soft_at: 11, ..request(tokens(1, 10), generate(1, false)) };
    assert!(matches!(engine.submit(misplaced), Err(SubmitError::Shape(_))));
    let wide = SoftRows::new(vec![0.0; 2 * 32], 2, 32).expect("right sizes");
    let wide = Request { soft: wide, ..request(tokens(1, 10), generate(1, false)) };
    assert!(matches!(engine.submit(wide), Err(SubmitError::Shape(_))), "rows of another width");
}

#[test]
fn captures_and_scores_see_soft_rows() {
    let engine = engine(8);
    let prompt = tokens(1, 70);
    let spec = CaptureSpec { resid: vec![0, 1], heads: vec![(1, 3)] };
    let capture = |from| Want::Capture(Capture { spec: spec.clone(), from, reduce: Reduce::Each });
    let plain = alone(&engine, &request(prompt.clone(), capture(0)));
    let with = |want| Request { soft: soft(2, 4), soft_at: 30, ..request(prompt.clone(), want) };
    let captured = alone(&engine, &with(capture(0))).captured;
    assert_eq!(captured.len(), 70, "tokens only");
    assert_eq!(captured[0].len(), 2 * D_MODEL + tiny::D_HEAD);
    assert_eq!(captured[..30], plain.captured[..30]);
    assert!((30..70).all(|i| captured[i] != plain.captured[i]));
    assert_eq!(alone(&engine, &with(capture(50))).captured, captured[50..]);
    // What a score says of the next token is what generating says.
    let next = alone(&engine, &with(generate(1, false))).tokens.remove(0);
    let scored = alone(&engine, &with(Want::Score(vec![vec![next.id]]))).scored;
    assert_eq!(scored, [[next.logprob]]);
}

#[test]
fn forgetting_ends_and_wipes_one_owner_and_touches_nobody_else() {
    let engine = engine(64);
    let ask = |name: &str, prompt: u64, n: u32| Request {
        soft: soft(if name == "a" { 1 } else { 2 }, 4),
        soft_at: 40,
        owner: owner(name),
        ..request(tokens(prompt, 100), generate(n, false))
    };
    let wanted = alone(&engine, &ask("b", 1, 300));
    // Idle pages of the past, in the cache and free.
    run(&engine, ask("a", 1, 5));
    run(&engine, Request { use_cache: false, ..ask("a", 2, 5) });
    run(&engine, request(tokens(1, 100), generate(5, false)));
    let mut running = engine.submit(ask("a", 1, 1900)).expect("accepted");
    let neighbour = engine.submit(ask("b", 1, 300)).expect("accepted");
    while !matches!(running.next_blocking(), Some(Event::Token { .. })) {}
    let waiting: Vec<_> = (0..20).map(|i| engine.submit(ask("a", 50 + i, 50)).expect("accepted")).collect();
    assert!(engine.owner_pages(owner("a")) >= 3);
    let forgotten = engine.forget(owner("a"));
    assert!(forgotten.sequences > 1 && forgotten.pages >= 3, "{forgotten:?}");
    assert_eq!(engine.owner_pages(owner("a")), 0);
    for events in waiting.into_iter().chain([running]) {
        assert_eq!(finish(events).map(|_| ()), Err(SequenceError::OwnerDeleted));
    }
    assert_eq!(finish(neighbour).expect("goes on").0, wanted);
    // What was on its way ends too, and a page that all may share is still there.
    let late = engine.submit(ask("a", 1, 5)).expect("accepted");
    assert_eq!(finish(late).map(|_| ()), Err(SequenceError::OwnerDeleted));
    assert_eq!(engine.owner_pages(owner("a")), 0);
    assert_eq!(run(&engine, request(tokens(1, 100), generate(5, false))).1.cached_tokens, 99);
    assert_eq!(engine.forget(owner("nobody")), Forgotten::default());
    assert_eq!(engine.forget(Digest::default()), Forgotten::default());
}

/// Two owners with the same rows have pages of their own.
#[test]
fn owners_share_no_page_from_their_rows_on() {
    let engine = engine(64);
    let ask = |name: &str| Request {
        soft: soft(1, 4),
        soft_at: 70,
        owner: owner(name),
        ..request(tokens(1, 200), generate(1, false))
    };
    run(&engine, ask("a"));
    assert_eq!(run(&engine, ask("b")).1.cached_tokens, 70, "what precedes their rows is nobody's");
    assert_eq!(run(&engine, ask("b")).1.cached_tokens, 199);
    let pages = (engine.owner_pages(owner("a")), engine.owner_pages(owner("b")));
    // Rows 64 to 203 are three pages; the second run of `b` left its copy of the last one behind.
    assert_eq!(pages, (3, 4));
}

/// Where everything is one owner's, nothing at all is left in the cache's memory.
#[test]
fn no_byte_of_a_forgotten_owner_is_left() {
    let engine = engine(32);
    let ask = |prompt: u64| Request {
        soft: soft(1, 4),
        owner: owner("a"),
        ..request(tokens(prompt, 150), generate(20, false))
    };
    let score = Request { ..ask(9) };
    let events: Vec<_> = (0..4).map(|i| engine.submit(ask(i)).expect("accepted")).collect();
    events.into_iter().for_each(|events| drop(finish(events)));
    let choices = (0..6).map(|i| tokens(i, 70)).collect();
    run(&engine, Request { want: Want::Score(choices), ..score });
    assert!(engine.nonzero_pages() >= 12);
    engine.forget(owner("a"));
    assert_eq!(engine.nonzero_pages(), 0);
}

/// Sixty continuations of different lengths, one after another and together, with room and without: the same numbers.
#[test]
fn continuations_on_lanes_are_scored_as_alone() {
    let mut random = Random(3);
    for (prompt, options) in [(1, (64, 20.0)), (64, (64, 0.01)), (100, (64, 20.0)), (130, (4, 20.0))] {
        let (pages, step_budget_ms) = options;
        let engine =
            engine_with(pages, EngineOptions { max_batch: 16, queue: 64, step_budget_ms, draft_max: 8 });
        let continuations: Vec<Vec<TokenId>> =
            (0..60).map(|i| tokens(i, [0, 1, 2, 2, 3, 5, 70, 100][random.below(8)])).collect();
        let ask = |list: &[Vec<TokenId>]| Request {
            soft: soft(1, 4),
            edits: steered(2, RowRule::Response),
            ..request(tokens(9, prompt), Want::Score(list.to_vec()))
        };
        let before = engine.stats().steps_total.load(Relaxed);
        let together = run(&engine, ask(&continuations)).0.scored;
        let steps = engine.stats().steps_total.load(Relaxed) - before;
        for (continuation, scored) in continuations.iter().zip(&together) {
            assert_eq!(scored.len(), continuation.len());
            let one = alone(&engine, &ask(std::slice::from_ref(continuation))).scored;
            assert_eq!(&one[0], scored, "after {prompt} tokens, {pages} pages");
        }
        // Scoring is teacher forcing: the same as the log-probabilities of the whole as a prompt.
        let longest = continuations.iter().max_by_key(|ids| ids.len()).expect("some");
        let whole = [tokens(9, prompt), longest.clone()].concat();
        let whole = Request { prompt: whole, edits: Arc::default(), ..ask(&[]) };
        let whole = alone(&engine, &Request { want: generate(1, true), ..whole }).prompt;
        let plain = Request { edits: Arc::default(), ..ask(std::slice::from_ref(longest)) };
        let whole: Vec<f32> = whole[prompt - 1..].iter().map(|token| token.logprob).collect();
        assert_eq!(run(&engine, plain).0.scored, [whole]);
        if pages == 64 && step_budget_ms > 1.0 {
            assert!(steps < 60, "{steps} steps for 60 continuations");
        }
        settle(&engine);
        assert_eq!(engine.stats().kv_pages_in_use.load(Relaxed), 0);
    }
}

#[test]
fn requests_in_order_wait_while_the_queue_is_full() {
    let full = engine_with(32, EngineOptions { max_batch: 1, queue: 1, step_budget_ms: 20.0, draft_max: 0 });
    let requests: Vec<Request> =
        (0..4).map(|i| request(tokens(i, 20 + i as usize), generate(3, false))).collect();
    let wanted: Vec<Answer> = requests.iter().map(|request| alone(&full, request)).collect();
    let mut found = Vec::new();
    let run =
        |window, requests: &[Request], take: &mut dyn FnMut(Events, usize) -> Result<(), SubmitError>| {
            full.run_in_order(window, requests.iter().cloned().zip(0..).map(Ok), take)
        };
    run(4, &requests, &mut |events, at| {
        found.push((at, finish(events).expect("no failure").0));
        Ok(())
    })
    .expect("it waits");
    assert_eq!(found, (0..).zip(wanted).collect::<Vec<_>>());
    let (mut bad, mut taken) = (requests, 0);
    bad[1].prompt.clear();
    let refused = run(1, &bad, &mut |_, _| {
        taken += 1;
        Ok(())
    });
    assert_eq!((refused, taken), (Err(SubmitError::Empty), 1));
}

/// A request whose answer keeps to six tokens, so that it often says again what it said: guesses are right and wrong.
fn repetitive(index: usize) -> Request {
    let sampling = Sampling {
        temperature: [0.0, 0.3, 1.0][index % 3],
        seed: index as u64,
        logit_bias: (10..16).map(|id| (id, 50.0)).collect(),
        repetition_penalty: [1.0, 1.0, 1.3][index / 2 % 3],
        frequency_penalty: [0.0, 0.0, 0.05][index / 3 % 3],
        ..Sampling::default()
    };
    let rule = [RowRule::All, RowRule::Response, RowRule::First(2), RowRule::First(90)][index % 4];
    let prompt = tokens(index as u64 % 4, 20 + 13 * (index % 7));
    let Want::Generate(generate) = generate([150, 1, 2, 3, 120, 97, 64][index % 7], index.is_multiple_of(5))
    else {
        unreachable!("it generates")
    };
    Request {
        soft: if index.is_multiple_of(3) { soft(1, 4) } else { SoftRows::none() },
        soft_at: 7,
        edits: if index.is_multiple_of(2) { steered(index as u64 % 3, rule) } else { Arc::default() },
        owner: [Digest::default(), owner("a")][index % 2],
        ..request(
            prompt,
            Want::Generate(Generate {
                sampling,
                stop_tokens: if index % 4 == 3 { Arc::from([12, 14]) } else { Arc::from([]) },
                ..generate
            }),
        )
    }
}

/// With neighbours, preemption, the cache and pages that end within a guess: what a guess costs or saves is time.
#[test]
fn guesses_change_no_byte_of_an_answer() {
    let options = EngineOptions { max_batch: 3, queue: 64, step_budget_ms: 20.0, draft_max: 0 };
    let (plain, drafting) =
        (engine_with(5, options.clone()), engine_with(5, EngineOptions { draft_max: 8, ..options }));
    let requests: Vec<Request> = (0..42).map(repetitive).collect();
    let wanted: Vec<(Answer, u32)> = requests
        .iter()
        .map(|ask| run(&plain, Request { use_cache: false, ..ask.clone() }))
        .map(|(answer, usage)| (answer, usage.generated_tokens))
        .collect();
    // One after the other, then all at once: then who decodes alone changes from step to step.
    for round in [requests.chunks(1), requests.chunks(requests.len())] {
        let answers = round.flat_map(|together| {
            let submit = |request: &Request| drafting.submit(request.clone()).expect("accepted");
            let events: Vec<_> = together.iter().map(submit).collect();
            events.into_iter().map(|events| finish(events).expect("no failure"))
        });
        for (index, ((answer, usage), wanted)) in answers.zip(&wanted).enumerate() {
            assert!(answer == wanted.0, "request {index}");
            assert_eq!(usage.generated_tokens, wanted.1, "request {index}");
        }
    }
    settle(&drafting);
    let stats = drafting.stats();
    let (drafted, accepted) =
        (stats.draft_tokens_total.load(Relaxed), stats.draft_accepted_tokens_total.load(Relaxed));
    assert!(accepted > 500 && drafted > accepted + 50, "{stats:?}");
    assert!(stats.preemptions_total.load(Relaxed) > 0, "{stats:?}");
    assert_eq!(stats.kv_pages_in_use.load(Relaxed), 0);
    assert_eq!(plain.stats().draft_tokens_total.load(Relaxed), 0);
}

/// Rows of guesses that were not drawn are not in the cache: what goes on from an answer finds as many rows as without.
#[test]
fn the_cache_keeps_rows_that_were_drawn_and_no_guess() {
    let options = EngineOptions { max_batch: 4, queue: 8, step_budget_ms: 20.0, draft_max: 0 };
    let engines =
        [engine_with(64, options.clone()), engine_with(64, EngineOptions { draft_max: 8, ..options })];
    for index in [0, 4, 5, 7, 11, 14] {
        let ask = Request { soft: SoftRows::none(), soft_at: 0, ..repetitive(index) };
        let found = engines.each_ref().map(|engine| {
            let answer = run(engine, ask.clone()).0;
            let drawn = answer.tokens.iter().map(|token| token.id);
            let further = ask.prompt.iter().copied().chain(drawn).chain([1, 2, 3]).collect();
            let further = Request { prompt: further, edits: Arc::default(), ..ask.clone() };
            let (next, usage) = run(engine, further.clone());
            assert!(next == alone(engine, &further), "{index}");
            (next, usage.cached_tokens)
        });
        assert!(found[0] == found[1], "{index}: {} and {}", found[0].1, found[1].1);
    }
    assert!(engines[1].stats().draft_accepted_tokens_total.load(Relaxed) > 100);
}

/// A dose far too large ends an answer at its own row, not at that of a guess before which nothing is wrong.
#[test]
fn a_guess_that_is_not_finite_ends_no_answer_early() {
    let options = EngineOptions { max_batch: 1, queue: 8, step_budget_ms: 20.0, draft_max: 8 };
    let engine = engine_with(8, options);
    let Want::Generate(generate) = generate(150, false) else { unreachable!("it generates") };
    let bias = [(10, 1e6), (11, 1e6)].to_vec();
    let sampling = Sampling { temperature: 0.0, logit_bias: bias, ..Sampling::default() };
    for from in 40..49 {
        let mut blocks = vec![BlockEdits::default(); N_BLOCKS];
        let delta = Change::Add { delta: vec![f32::NAN; D_MODEL].into() };
        blocks[0].resid.push(Edit::new(delta, RowRule::After(from)));
        let ask = Request {
            edits: Arc::new(Edits::new(blocks)),
            ..request(
                tokens(1, 20),
                Want::Generate(Generate { sampling: sampling.clone(), ..generate.clone() }),
            )
        };
        let mut events = engine.submit(ask).expect("accepted");
        let mut drawn = 0;
        let error = loop {
            match events.next_blocking() {
                Some(Event::Token { .. }) => drawn += 1,
                Some(Event::Failed(error)) => break error,
                Some(Event::Prefilled { .. } | Event::Progress { .. }) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((error, drawn), (SequenceError::NonFiniteLogits, from));
    }
    assert!(engine.stats().draft_accepted_tokens_total.load(Relaxed) > 100, "{:?}", engine.stats());
}
