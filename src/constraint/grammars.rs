//! Compiling shapes for one model's tokens, in bounded memory and time.

use super::error::{FAILED, cleaned};
use super::masks::{Constraint, Workers};
use super::{ConstraintError, Shape, vocabulary};
use crate::limits;
use crate::sync::lock;
use crate::text::Tokenizer;
use llguidance::{Matcher, ParserFactory};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

/// The grammar engine for one tokenizer; cheap to clone. What it needs of the vocabulary is made at the first use: some
/// tenths of a second and some MB.
#[derive(Clone)]
pub struct Grammars {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: Arc<Tokenizer>,
    tools: OnceLock<Result<Tools, ConstraintError>>,
    /// Compilations under way.
    running: Mutex<usize>,
    ended: Condvar,
}

struct Tools {
    factory: ParserFactory,
    workers: Workers,
}

/// A constraint, with what of the shape it does not enforce.
#[derive(Debug)]
pub struct Compiled {
    pub constraint: Constraint,
    pub warnings: Vec<String>,
}

impl Grammars {
    pub fn new(tokenizer: Arc<Tokenizer>) -> Grammars {
        let inner =
            Inner { tokenizer, tools: OnceLock::new(), running: Mutex::new(0), ended: Condvar::new() };
        Grammars { inner: Arc::new(inner) }
    }

    /// Checks and compiles, once there is a place for it. Blocks: for threads outside the async runtime.
    pub fn compile(&self, shape: &Shape) -> Result<Compiled, ConstraintError> {
        shape.check()?;
        let place = Place::take(&self.inner).ok_or(ConstraintError::Busy)?;
        let (sender, receiver) = mpsc::channel();
        let (inner, shape) = (self.inner.clone(), shape.clone());
        // Nested shapes are compiled recursively: that needs a stack of its own. A compilation that takes too long is
        // left to itself; its place stays taken until it ends.
        std::thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(limits::CONSTRAINT_STACK_BYTES)
            .spawn(move || {
                let compiled = inner.compile(&shape);
                drop(place);
                let _ = sender.send(compiled);
            })
            .map_err(|_| ConstraintError::Busy)?;
        let seconds = limits::CONSTRAINT_COMPILE_SECONDS_MAX;
        match receiver.recv_timeout(Duration::from_secs(seconds)) {
            Ok(compiled) => compiled,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(ConstraintError::TooSlow { seconds }),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(ConstraintError::Refused(FAILED.to_owned())),
        }
    }
}

impl Inner {
    fn compile(&self, shape: &Shape) -> Result<Compiled, ConstraintError> {
        let tools = self.tools.get_or_init(|| Tools::new(&self.tokenizer)).as_ref().map_err(Clone::clone)?;
        let grammar = shape.grammar()?;
        let parser = tools.factory.create_parser(grammar);
        let parser = parser.map_err(|error| ConstraintError::Refused(cleaned(&format!("{error:#}"))))?;
        let mut matcher = Matcher::new(Ok(parser));
        let warnings = matcher.grammar_warnings().iter().map(|warning| cleaned(warning)).collect();
        let constraint = Constraint::new(matcher, tools.workers.clone());
        Ok(Compiled { constraint, warnings })
    }
}

impl Tools {
    fn new(tokenizer: &Arc<Tokenizer>) -> Result<Tools, ConstraintError> {
        let unavailable = |error: String| ConstraintError::Unavailable(cleaned(&error));
        let environment = vocabulary::environment(tokenizer)?;
        let factory = ParserFactory::new_simple(&environment);
        let mut factory = factory.map_err(|error| unavailable(format!("{error:#}")))?;
        factory.quiet();
        let bounds = factory.limits_mut();
        bounds.initial_lexer_fuel = limits::CONSTRAINT_COMPILE_STEPS_MAX;
        bounds.step_lexer_fuel = limits::CONSTRAINT_LEXER_STEPS_MAX;
        bounds.step_max_items = limits::CONSTRAINT_PARSER_ITEMS_MAX;
        bounds.max_lexer_states = limits::CONSTRAINT_LEXER_STATES_MAX;
        bounds.max_grammar_size = limits::CONSTRAINT_SYMBOLS_MAX;
        bounds.verbose_errors = false;
        let workers = Workers::start().map_err(|error| unavailable(error.to_string()))?;
        Ok(Tools { factory, workers })
    }
}

/// One of the few compilations that may run at once.
struct Place(Arc<Inner>);

impl Place {
    fn take(inner: &Arc<Inner>) -> Option<Place> {
        let wait = Duration::from_secs(limits::CONSTRAINT_COMPILE_SECONDS_MAX);
        let is_full = |running: &mut usize| *running >= limits::CONSTRAINT_COMPILES_MAX;
        let waited = inner.ended.wait_timeout_while(lock(&inner.running), wait, is_full);
        let (mut running, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return None;
        }
        *running += 1;
        Some(Place(inner.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&self.0.running) -= 1;
        self.0.ended.notify_one();
    }
}

#[cfg(test)]
#[path = "grammars_tests.rs"]
mod tests;
