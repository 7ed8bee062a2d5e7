//! All vectors of the loaded model by name: those stored, and those that traits promise and that are made on first use.

use super::dose::Norms;
use super::error::SteeringError;
use super::extraction::FORM;
use super::formats::{self, Assumed, Format, Imported};
use super::info::VectorInfo;
use super::maker::{Keep, Key, Made, Maker, Measures, Pending, State, Task};
use super::measure::Meter;
use super::names::{is_valid_name, nearest};
use super::norms::neutral_text;
use super::plan::{self, Applied, Resolved};
use super::request::{Intervention, Source, SteeringRequest, Unit};
use super::store::Vectors;
use super::traits::{Contrast, Trait, digest_of};
use super::vector::{Calibration, ModelShape, Origin, Vector};
use crate::digest::Digest;
use crate::engine::Engine;
use crate::jobs::Jobs;
use crate::limits;
use crate::model::{HeadOutputs, ModelError};
use crate::store::Store;
use crate::sync::lock;
use crate::text::Text;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// The vectors of one loaded model. Cheap to clone.
#[derive(Clone)]
pub struct Library {
    shared: Arc<Shared>,
    maker: Arc<Maker>,
    /// For directions of single heads; `None` without an engine.
    heads: Option<HeadOutputs>,
}

/// What the library is built from besides the model.
pub struct LibraryOptions<'a> {
    /// Where vectors and norms are kept.
    pub store: &'a Store,
    /// Where extractions are told of.
    pub jobs: &'a Jobs,
    pub max_dose: f32,
}

/// State that requests and the maker's thread share.
pub(super) struct Shared {
    model: ModelShape,
    /// For `controlvector.model_hint`.
    architecture: String,
    max_dose: f32,
    traits: Vec<Trait>,
    /// What each trait is extracted from, in the same order.
    promised: Vec<Pairs>,
    store: Vectors,
    neutral: &'static str,
    /// Vectors read or made so far.
    loaded: Mutex<BTreeMap<String, Arc<Vector>>>,
    norms: Mutex<Option<Arc<Norms>>>,
}

/// What a name stands for.
struct Located {
    /// Name of the vector on disk.
    vector: String,
    /// -1 for the second pole of a trait.
    sign: f32,
    /// What it is extracted from, for traits.
    pairs: Option<Pairs>,
}

/// A contrast set with its digest.
#[derive(Clone)]
struct Pairs {
    contrasts: Arc<[Contrast]>,
    digest: Digest,
}

impl Pairs {
    fn of(contrasts: Vec<Contrast>) -> Pairs {
        Pairs { digest: digest_of(&contrasts), contrasts: contrasts.into() }
    }
}

/// What an intervention's source stands for.
enum Found {
    Named(Located),
    Inline(Arc<Vector>),
}

impl Library {
    /// Opens the library of a running engine's model.
    pub fn start(
        engine: Engine,
        text: Arc<Text>,
        options: LibraryOptions<'_>,
    ) -> Result<Library, SteeringError> {
        let info = engine.info();
        let model =
            ModelShape { n_blocks: info.n_blocks, d_model: info.d_model, weights: info.weights_digest };
        let architecture = info.architecture.clone();
        let heads = Some(engine.heads().clone());
        let library = Library::open(model, architecture, Trait::shipped()?, options, Meter { engine, text })?;
        Ok(Library { heads, ..library })
    }

    pub(super) fn open(
        model: ModelShape,
        architecture: String,
        traits: Vec<Trait>,
        options: LibraryOptions<'_>,
        measures: impl Measures,
    ) -> Result<Library, SteeringError> {
        let store = Vectors::open(options.store, model.weights);
        let neutral = neutral_text()?;
        let norms = store.load_norms(neutral, model.n_blocks).map(Arc::new);
        let shared = Arc::new(Shared {
            model,
            architecture,
            max_dose: options.max_dose,
            promised: traits.iter().map(|one| Pairs::of(one.training())).collect(),
            traits,
            store,
            neutral,
            loaded: Mutex::default(),
            norms: Mutex::new(norms),
        });
        let maker =
            Maker::start(measures, limits::EXTRACTIONS_WAITING_MAX, shared.clone(), options.jobs.clone())?;
        Ok(Library { shared, maker: Arc::new(maker), heads: None })
    }

    pub fn traits(&self) -> &[Trait] {
        &self.shared.traits
    }

    pub fn model(&self) -> &ModelShape {
        &self.shared.model
    }

    /// Turns a request into edits. Vectors and norms that are missing are made, and waited for until `wait` is over;
    /// then the error is `NotReady` and they go on being made. A vector that only lacks its calibration is used at its
    /// provisional scale.
    pub async fn plan(&self, request: &SteeringRequest, wait: Duration) -> Result<Applied, SteeringError> {
        if request.is_empty() {
            return Ok(Applied::none());
        }
        let deadline = Instant::now() + wait;
        let wanted = self.wanted(request)?;
        if wanted.is_empty() {
            return Ok(Applied { steering: request.canonical(), ..Applied::none() });
        }
        // All tasks are started before the first is waited for.
        for (_, found) in &wanted {
            if let Found::Named(located) = found
                && self.shared.ready(located)?.is_none()
            {
                drop(self.maker.request(located.task()));
            }
        }
        let mut resolved = Vec::with_capacity(wanted.len());
        for (intervention, found) in wanted {
            let (vector, sign) = match found {
                Found::Inline(vector) => (vector, 1.0),
                Found::Named(located) => (self.vector(&located, intervention, deadline).await?, located.sign),
            };
            resolved.push(Resolved { intervention, vector, sign });
        }
        let norms = self.norms(&resolved[0].intervention.param, deadline).await?;
        plan::compile(request, &resolved, &norms, &self.shared.model, self.shared.max_dose)
    }

    /// The same with what is there already: nothing is made and nothing waited for. `None` where something is missing.
    pub fn plan_now(&self, request: &SteeringRequest) -> Result<Option<Applied>, SteeringError> {
        let wanted = self.wanted(request)?;
        if wanted.is_empty() {
            return Ok(Some(Applied { steering: request.canonical(), ..Applied::none() }));
        }
        let Some(norms) = self.shared.norms() else { return Ok(None) };
        let mut resolved = Vec::with_capacity(wanted.len());
        for (intervention, found) in wanted {
            let (vector, sign) = match found {
                Found::Inline(vector) => (vector, 1.0),
                Found::Named(located) => match self.shared.ready(&located)? {
                    Some(vector) => (vector, located.sign),
                    None => return Ok(None),
                },
            };
            resolved.push(Resolved { intervention, vector, sign });
        }
        plan::compile(request, &resolved, &norms, &self.shared.model, self.shared.max_dose).map(Some)
    }

    /// The interventions that do something, each with what its source stands for. Names are looked up for all.
    fn wanted<'a>(
        &self,
        request: &'a SteeringRequest,
    ) -> Result<Vec<(&'a Intervention, Found)>, SteeringError> {
        let mut wanted = Vec::new();
        for intervention in &request.interventions {
            let found = match &intervention.source {
                Source::Name(name) => Found::Named(self.locate(name, &intervention.param)?),
                Source::Inline(directions) => {
                    let param = format!("{}.directions", intervention.param);
                    let directions =
                        directions.iter().map(|(block, values)| (*block, Arc::from(&values[..]))).collect();
                    let vector = Vector::new("inline", directions, &param)?;
                    vector.check_fits(&self.shared.model, &param)?;
                    Found::Inline(Arc::new(vector))
                }
                Source::Heads(heads) => {
                    Found::Inline(Arc::new(self.of_heads(heads, &format!("{}.heads", intervention.param))?))
                }
            };
            if intervention.coefficient != 0.0 {
                wanted.push((intervention, found));
            }
        }
        Ok(wanted)
    }

    /// Directions of heads as one direction at `attn[l]` for each block.
    fn of_heads(&self, heads: &BTreeMap<(u32, u32), Vec<f32>>, param: &str) -> Result<Vector, SteeringError> {
        let outputs = self.heads.as_ref().ok_or_else(|| SteeringError::unsupported(param, "a head here"))?;
        let mut directions: BTreeMap<u32, Vec<f32>> = BTreeMap::new();
        for (&(block, head), values) in heads {
            let direction = outputs.direction(block, head, values).map_err(|error| match error {
                ModelError::HeadBehindNorm => SteeringError::unsupported(
                    param,
                    "a direction of a head (this model norms the output of attention)",
                ),
                error @ (ModelError::NoSuchHead { .. } | ModelError::HeadWidth { .. }) => {
                    SteeringError::unfit(param, error.to_string())
                }
                error => SteeringError::Internal(error.to_string()),
            })?;
            let sum = directions.entry(block).or_insert_with(|| vec![0.0; direction.len()]);
            sum.iter_mut().zip(direction).for_each(|(sum, value)| *sum += value);
        }
        let directions = directions.into_iter().map(|(block, values)| (block, Arc::from(values)));
        Vector::new("inline", directions.collect(), param)
    }

    /// A vector by its name or a pole's, with the sign of the pole; made and waited for as in [`Library::plan`].
    pub async fn direction(
        &self,
        name: &str,
        param: &str,
        wait: Duration,
    ) -> Result<(Arc<Vector>, f32), SteeringError> {
        let mut request = SteeringRequest::from_expression(name, param)?;
        let plain = request.interventions.pop().filter(|only| {
            request.is_empty() && only.source == Source::Name(name.to_owned()) && only.blocks.is_none()
        });
        let Some(mut intervention) = plain else {
            return Err(SteeringError::range(param, "expected the name of one vector"));
        };
        intervention.unit = Unit::Raw;
        let located = self.locate(name, param)?;
        let vector = self.vector(&located, &intervention, Instant::now() + wait).await?;
        Ok((vector, located.sign))
    }

    /// What a name stands for, a vector that is just being made included.
    fn locate(&self, name: &str, param: &str) -> Result<Located, SteeringError> {
        let found = self.shared.locate(name, param);
        let is_made = || self.maker.state(&Key::Extract(name.to_owned())).is_some();
        match found {
            Err(SteeringError::Unknown { .. }) if is_made() => {
                Ok(Located { vector: name.to_owned(), sign: 1.0, pairs: None })
            }
            found => found,
        }
    }

    async fn vector(
        &self,
        located: &Located,
        intervention: &Intervention,
        deadline: Instant,
    ) -> Result<Arc<Vector>, SteeringError> {
        let param = &intervention.param;
        let vector = match self.shared.ready(located)? {
            Some(vector) => vector,
            None => {
                self.wait(located.task(), &located.vector, param, deadline).await?;
                self.shared.ready(located)?.ok_or_else(|| not_kept(&located.vector))?
            }
        };
        if intervention.unit != Unit::Calibrated || vector.calibration.is_some() {
            return Ok(vector);
        }
        let task = Task::Calibrate { vector: vector.clone() };
        match self.wait(task, &located.vector, param, deadline).await {
            Ok(()) => Ok(self.shared.ready(located)?.unwrap_or(vector)),
            Err(SteeringError::NotReady { .. } | SteeringError::Failed { .. }) => Ok(vector),
            Err(error) => Err(error),
        }
    }

    async fn norms(&self, param: &str, deadline: Instant) -> Result<Arc<Norms>, SteeringError> {
        if let Some(norms) = self.shared.norms() {
            return Ok(norms);
        }
        self.wait(Task::Norms, "the model's norms", param, deadline).await?;
        self.shared.norms().ok_or_else(|| not_kept("norms"))
    }

    /// Waits until a task is done.
    async fn wait(
        &self,
        task: Task,
        name: &str,
        param: &str,
        deadline: Instant,
    ) -> Result<(), SteeringError> {
        let not_ready = |state: &str| SteeringError::NotReady {
            param: param.to_owned(),
            name: name.to_owned(),
            state: state.to_owned(),
            retry_after: self.maker.estimate(),
        };
        let mut receiver =
            self.maker.request(task).ok_or_else(|| not_ready("too many others are being made"))?.state;
        let finished = tokio::time::timeout_at(deadline, receiver.wait_for(State::is_finished)).await;
        match finished.map(|state| state.map(|state| state.clone())) {
            Ok(Ok(State::Done)) => Ok(()),
            Ok(Ok(State::Failed(error))) => Err(SteeringError::Failed {
                param: param.to_owned(),
                name: name.to_owned(),
                message: error.to_string(),
            }),
            Ok(Ok(State::Working(state))) => Err(not_ready(&state)),
            Ok(Err(_)) => Err(SteeringError::Internal("the steering thread has ended".to_owned())),
            Err(_) => {
                let state = match &*receiver.borrow() {
                    State::Working(state) => state.clone(),
                    State::Done | State::Failed(_) => "finishing".to_owned(),
                };
                Err(not_ready(&state))
            }
        }
    }

    /// Makes sure that a vector is there or on its way; its progress, or `None` when it is ready.
    pub fn prepare(&self, name: &str) -> Result<Option<Pending>, SteeringError> {
        let located = self.locate(name, "name")?;
        match self.shared.ready(&located)? {
            Some(_) => Ok(None),
            None => self.queue(located.task(), &located.vector).map(Some),
        }
    }

    /// Starts to extract a vector from pairs: `(reply of one pole, of the other, prompt)`.
    pub fn extract(&self, name: &str, pairs: Vec<Contrast>, replace: bool) -> Result<Pending, SteeringError> {
        self.shared.check_new_name(name, replace)?;
        self.refuse_pending(name)?;
        check_pairs(&pairs)?;
        self.queue(Task::Extract { name: name.to_owned(), contrasts: pairs.into() }, name)
    }

    /// A name that is being extracted is taken, though nothing is stored yet.
    fn refuse_pending(&self, name: &str) -> Result<(), SteeringError> {
        match self.maker.state(&Key::Extract(name.to_owned())) {
            Some(State::Working(_)) => Err(SteeringError::Conflict {
                param: "name".to_owned(),
                message: format!("a vector `{name}` is being extracted; wait for it or choose another name"),
            }),
            _ => Ok(()),
        }
    }

    fn queue(&self, task: Task, name: &str) -> Result<Pending, SteeringError> {
        self.maker.request(task).ok_or_else(|| SteeringError::NotReady {
            param: "name".to_owned(),
            name: name.to_owned(),
            state: "too many others are being made".to_owned(),
            retry_after: self.maker.estimate(),
        })
    }

    /// Stores the vector of a file, and says how its numbers will be applied. `any_weights` takes one that was made on
    /// other weights of the same shape.
    pub fn upload(
        &self,
        name: &str,
        file: Vec<u8>,
        replace: bool,
        any_weights: bool,
    ) -> Result<(VectorInfo, Assumed), SteeringError> {
        self.shared.check_new_name(name, replace)?;
        self.refuse_pending(name)?;
        let Imported { mut vector, assumed } = formats::read(file, name)?;
        let model = &self.shared.model;
        if any_weights && vector.provenance.weights.is_some_and(|weights| weights != model.weights) {
            vector.provenance.weights = None;
            vector.calibration = None;
        }
        vector.check_fits(model, "file")?;
        self.shared.store.save(&vector)?;
        let vector = self.shared.put(vector);
        Ok((VectorInfo::of(&vector), assumed))
    }

    /// Stores a vector that was made of a person's answers. One of its name is replaced only where it was made so too.
    pub fn keep_aligned(&self, vector: Vector) -> Result<VectorInfo, SteeringError> {
        self.check_aligned(vector.name())?;
        vector.check_fits(&self.shared.model, "name")?;
        self.shared.store.save(&vector)?;
        Ok(VectorInfo::of(&self.shared.put(vector)))
    }

    /// Whether [`Library::keep_aligned`] would take this name.
    pub fn check_aligned(&self, name: &str) -> Result<(), SteeringError> {
        let of_answers = |vector: &Vector| matches!(vector.provenance.origin, Origin::Alignment { .. });
        let replace = is_valid_name(name)
            && self.shared.load(name).ok().flatten().is_some_and(|vector| of_answers(&vector));
        self.shared.check_new_name(name, replace)?;
        self.refuse_pending(name)
    }

    /// Removes a vector from memory and disk; running requests keep theirs. A trait's is made again on its next use.
    pub fn delete(&self, name: &str) -> Result<(), SteeringError> {
        let vector = match self.locate(name, "name") {
            Ok(located) => located.vector,
            // A file that cannot be read can still be removed.
            Err(SteeringError::BadFile { .. }) if is_valid_name(name) => name.to_owned(),
            Err(error) => return Err(error),
        };
        let was_loaded = lock(&self.shared.loaded).remove(&vector).is_some();
        if self.shared.store.delete(&vector)? || was_loaded {
            return Ok(());
        }
        Err(self.shared.unknown(name, "name"))
    }

    /// A vector as a file; for a trait's second pole with the sign reversed.
    pub fn export(&self, name: &str, format: Format) -> Result<Vec<u8>, SteeringError> {
        let located = self.locate(name, "name")?;
        let vector = self.shared.ready(&located)?.ok_or_else(|| self.not_made(&located))?;
        if located.sign > 0.0 {
            return formats::write(&vector, format, &self.shared.architecture);
        }
        let mut reversed = vector.scaled(|_| -1.0, "name")?;
        reversed.calibration = vector.calibration.map(Calibration::reversed);
        formats::write(&reversed.named(name), format, &self.shared.architecture)
    }

    pub fn show(&self, name: &str) -> Result<VectorInfo, SteeringError> {
        let located = self.locate(name, "name")?;
        let vector = self.shared.ready(&located)?.ok_or_else(|| self.not_made(&located))?;
        Ok(VectorInfo::of(&vector))
    }

    /// Every stored vector, sorted by name. Files that cannot be read are left out.
    pub fn list(&self) -> Result<Vec<VectorInfo>, SteeringError> {
        let mut names: BTreeSet<String> = self.shared.store.names()?.into_iter().collect();
        names.extend(lock(&self.shared.loaded).keys().cloned());
        let found = names.iter().filter_map(|name| self.shared.load(name).ok().flatten());
        Ok(found.map(|vector| VectorInfo::of(&vector)).collect())
    }

    fn not_made(&self, located: &Located) -> SteeringError {
        let state = match self.maker.state(&located.task().key()) {
            Some(State::Working(message)) => message,
            _ => "not extracted yet; a request that uses it or `demeanor extract` does it".to_owned(),
        };
        SteeringError::NotReady {
            param: "name".to_owned(),
            name: located.vector.clone(),
            state,
            retry_after: self.maker.estimate(),
        }
    }
}

impl Located {
    /// The task that makes it, or joins its making: a vector that is no trait's has no pairs to start from.
    fn task(&self) -> Task {
        let contrasts = self.pairs.as_ref().map_or_else(|| Arc::from([]), |pairs| pairs.contrasts.clone());
        Task::Extract { name: self.vector.clone(), contrasts }
    }
}

impl Shared {
    fn norms(&self) -> Option<Arc<Norms>> {
        lock(&self.norms).clone()
    }

    /// What a name stands for: a trait's pole, both poles with a point between them, or a stored vector.
    fn locate(&self, name: &str, param: &str) -> Result<Located, SteeringError> {
        for (found, pairs) in self.traits.iter().zip(&self.promised) {
            if let Some(sign) = found.sign_of(name) {
                return Ok(Located { vector: found.name.clone(), sign, pairs: Some(pairs.clone()) });
            }
        }
        let located = Located { vector: name.to_owned(), sign: 1.0, pairs: None };
        match is_valid_name(name) && self.load(name)?.is_some() {
            true => Ok(located),
            false => Err(self.unknown(name, param)),
        }
    }

    /// The vector, if it is made. A trait's vector made from other pairs or by another recipe counts as not made.
    fn ready(&self, located: &Located) -> Result<Option<Arc<Vector>>, SteeringError> {
        let loaded = match self.load(&located.vector) {
            // A trait's file that cannot be read is made again.
            Err(SteeringError::BadFile { .. }) if located.pairs.is_some() => None,
            loaded => loaded?,
        };
        let Some(vector) = loaded else {
            return Ok(None);
        };
        let Some(pairs) = &located.pairs else {
            return Ok(Some(vector));
        };
        let current = match &vector.provenance.origin {
            Origin::Contrast { form, contrast, .. } => form == FORM && *contrast == pairs.digest,
            Origin::Alignment { .. } | Origin::File { .. } | Origin::Unknown => false,
        };
        let fits = vector.check_fits(&self.model, "name").is_ok();
        Ok((current && fits).then_some(vector))
    }

    /// A vector from memory or disk.
    fn load(&self, name: &str) -> Result<Option<Arc<Vector>>, SteeringError> {
        if let Some(vector) = lock(&self.loaded).get(name) {
            return Ok(Some(vector.clone()));
        }
        let Some(vector) = self.store.load(name)? else {
            return Ok(None);
        };
        // Another request may have read it meanwhile: all share one.
        Ok(Some(lock(&self.loaded).entry(name.to_owned()).or_insert_with(|| Arc::new(vector)).clone()))
    }

    fn put(&self, vector: Vector) -> Arc<Vector> {
        let vector = Arc::new(vector);
        lock(&self.loaded).insert(vector.name().to_owned(), vector.clone());
        vector
    }

    /// Puts a calibrated copy in the vector's place, unless it was replaced or deleted meanwhile.
    fn calibrated(&self, vector: &Arc<Vector>, calibration: Calibration) -> Option<Arc<Vector>> {
        let mut loaded = lock(&self.loaded);
        let current = loaded.get_mut(vector.name()).filter(|current| Arc::ptr_eq(current, vector))?;
        let mut calibrated = (**vector).clone();
        calibrated.calibration = Some(calibration);
        calibrated.provenance.weights.get_or_insert(self.model.weights);
        *current = Arc::new(calibrated);
        Some(current.clone())
    }

    fn unknown(&self, name: &str, param: &str) -> SteeringError {
        let stored = self.store.names().unwrap_or_default();
        let poles = self.traits.iter().flat_map(|found| [found.name.as_str(), found.opposite.as_str()]);
        let nearest = nearest(name, stored.iter().map(String::as_str).chain(poles));
        SteeringError::Unknown { param: param.to_owned(), name: name.to_owned(), nearest }
    }

    fn check_new_name(&self, name: &str, replace: bool) -> Result<(), SteeringError> {
        let conflict = |message: String| SteeringError::Conflict { param: "name".to_owned(), message };
        if !is_valid_name(name) {
            let message = "names match [a-z0-9][a-z0-9._-]{0,63}";
            return Err(SteeringError::range("name", message));
        }
        let stored = match self.locate(name, "name") {
            Ok(located) if located.pairs.is_some() => {
                return Err(conflict(format!("`{name}` is the name of a trait; choose another")));
            }
            located => located.is_ok() || self.store.names()?.iter().any(|stored| stored == name),
        };
        if stored && !replace {
            return Err(conflict(format!("there is a vector `{name}`; delete it or ask to replace it")));
        }
        if !stored && self.store.names()?.len() >= limits::VECTORS_MAX {
            return Err(conflict(format!("{} vectors are stored, no more are kept", limits::VECTORS_MAX)));
        }
        Ok(())
    }
}

impl Keep for Arc<Shared> {
    fn norms(&self) -> Option<Arc<Norms>> {
        Shared::norms(self)
    }

    /// Keeps in memory and on disk. A full disk costs the next start its time, not this one its answers.
    fn keep(&self, made: Made) {
        let saved = match made {
            Made::Norms(norms) => {
                *lock(&self.norms) = Some(Arc::new(norms.clone()));
                self.store.save_norms(&norms, self.neutral)
            }
            Made::Vector(vector) => self.store.save(&self.put(vector)),
            Made::Calibration { vector, calibration } => match self.calibrated(&vector, calibration) {
                Some(vector) => self.store.save(&vector),
                None => Ok(()),
            },
        };
        if let Err(error) = saved {
            tracing::warn!(%error, "a steering vector could not be stored; it is kept in memory");
        }
    }
}

fn check_pairs(pairs: &[Contrast]) -> Result<(), SteeringError> {
    if pairs.len() < 2 || pairs.len() > limits::CONTRAST_PAIRS_MAX {
        let message = format!("{} pairs; 2 to {} are allowed", pairs.len(), limits::CONTRAST_PAIRS_MAX);
        return Err(SteeringError::range("pairs", message));
    }
    for (index, Contrast { prompt, positive, negative }) in pairs.iter().enumerate() {
        for text in [Some(positive), Some(negative), prompt.as_ref()].into_iter().flatten() {
            if text.trim().is_empty() || text.len() > limits::CONTRAST_TEXT_BYTES_MAX {
                let message = format!("texts of 1 to {} bytes are allowed", limits::CONTRAST_TEXT_BYTES_MAX);
                return Err(SteeringError::range(format!("pairs[{index}]"), message));
            }
        }
    }
    Ok(())
}

fn not_kept(name: &str) -> SteeringError {
    SteeringError::Internal(format!("`{name}` was made and is gone"))
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
