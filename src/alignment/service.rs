//! The way from a request to a stored persona: checks at once, then a job that aligns, measures and stores.

use super::AlignmentError;
use super::aligned::{Algorithm, Aligned, Protocol};
use super::aligner::{Aligner, Told, check, spread};
use super::inventory::Inventory;
use super::prepare::BaseWeights;
use super::scoring::{Answers, scores};
use crate::digest::Digest;
use crate::engine::Engine;
use crate::jobs::{JobContext, JobInfo, Jobs};
use crate::limits;
use crate::persona::{Persona, PersonaParts, PersonaSoft, PersonaSpec, Personas, persona_digest};
use crate::statistics::rounded;
use crate::steering::{Library, NAME_BYTES_MAX, RequestRules, SteeringRequest};
use crate::text::Text;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Items on which a result's answers are measured: all known ones of the shipped inventories.
const MEASURED_ITEMS: usize = 120;
/// How long the model's norms, which a dose is measured against, may take.
const NORMS_WAIT: Duration = Duration::from_secs(600);
/// What a vector's name adds to its persona's.
const SUFFIX: &str = ".alignment";

/// What the service works on.
#[derive(Clone)]
pub struct AlignmentParts {
    pub engine: Engine,
    pub text: Arc<Text>,
    pub library: Library,
    pub personas: Personas,
    pub jobs: Jobs,
    pub weights: BaseWeights,
    /// Where measurements are kept.
    pub folder: PathBuf,
}

/// A person to make a persona of.
#[derive(Clone, Debug)]
pub struct AlignmentRequest {
    /// Of the persona to be; its vector is `NAME.alignment`.
    pub name: String,
    pub inventory: Arc<Inventory>,
    pub answers: Answers,
    pub algorithm: Algorithm,
    pub protocol: Protocol,
    /// System text of the persona; empty: none.
    pub system: String,
}

/// Makes personas of people's answers. Cheap to clone. Its functions block on the disk.
#[derive(Clone)]
pub struct Alignments {
    parts: AlignmentParts,
    /// The aligner of the inventory that was used last.
    last: Arc<Mutex<Option<Arc<Aligner>>>>,
}

impl Alignments {
    pub fn new(parts: AlignmentParts) -> Alignments {
        Alignments { parts, last: Arc::default() }
    }

    /// Refuses what cannot become a persona, without running the model.
    pub fn check(&self, request: &AlignmentRequest) -> Result<(), AlignmentError> {
        self.parts.personas.check_new(&request.name)?;
        let vector = vector_name(&request.name);
        let max = NAME_BYTES_MAX - SUFFIX.len();
        if request.name.len() > max {
            return Err(AlignmentError::LongName { given: request.name.len(), max });
        }
        self.parts.library.check_aligned(&vector)?;
        PersonaSpec { system: request.system.clone(), ..PersonaSpec::default() }.check()?;
        check(&request.answers, &request.inventory, request.algorithm, request.protocol)?;
        let info = self.parts.engine.info();
        if info.parameters > limits::ALIGNMENT_PARAMETERS_MAX {
            let (given, max) = (info.parameters, limits::ALIGNMENT_PARAMETERS_MAX);
            return Err(AlignmentError::TooLarge { given, max });
        }
        if request.algorithm == Algorithm::Pas && self.parts.engine.heads().is_behind_norm() {
            return Err(AlignmentError::HeadsBehindNorm);
        }
        Ok(())
    }

    /// Checks a request and queues its job.
    pub fn start(&self, request: AlignmentRequest) -> Result<JobInfo, AlignmentError> {
        self.check(&request)?;
        let service = self.clone();
        let subject = format!("persona:{}", request.name);
        let work = move |job: &JobContext| service.work(&request, job).map_err(|error| error.to_string());
        Ok(self.parts.jobs.start_for("align", Some(&subject), None, work)?)
    }

    /// The aligner of an inventory, from memory, disk or a measurement.
    pub fn aligner(
        &self,
        inventory: &Arc<Inventory>,
        told: Told<'_>,
    ) -> Result<Arc<Aligner>, AlignmentError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(last) = last.filter(|last| last.inventory().digest() == inventory.digest()) {
            return Ok(last);
        }
        let AlignmentParts { engine, text, weights, folder, .. } = &self.parts;
        let aligner = Arc::new(Aligner::open(engine, text, inventory.clone(), weights, folder, told)?);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(aligner.clone());
        Ok(aligner)
    }

    fn work(&self, request: &AlignmentRequest, job: &JobContext) -> Result<Value, AlignmentError> {
        let mut told = |done: u64, total: u64, message: &str| {
            job.progress(done, Some(total), message);
            if job.cancelled() { Err(AlignmentError::Cancelled) } else { Ok(()) }
        };
        let begun = Instant::now();
        let aligner = self.aligner(&request.inventory, &mut told)?;
        let prepared = begun.elapsed();
        told(0, 1, "aligning")?;
        let begun = Instant::now();
        let aligned = aligner.align(&request.answers, request.algorithm, request.protocol)?;
        let measured = measure(&aligner, &aligned, &request.answers, &mut told)?;
        // Nobody may have taken the name meanwhile.
        self.check(request)?;
        told(1, 1, "storing")?;
        let persona = self.store(request, &aligner, &aligned)?;
        let person = scores(&request.inventory, &request.answers);
        let mut warnings = aligned.warnings.clone();
        warnings.extend(person.careless.flags());
        let seconds = json!({
            "once": rounded(prepared.as_secs_f64(), 4), "person": rounded(begun.elapsed().as_secs_f64(), 4),
        });
        Ok(json!({
            "persona": persona.name, "version": persona.version, "probe": "unprobed",
            "vector": (!persona.spec.steering.is_empty()).then(|| vector_name(&persona.name)),
            "algorithm": aligned.algorithm.name(), "protocol": request.protocol.name(),
            "coefficient": if persona.spec.steering.is_empty() { 0 } else { 1 },
            "curve": measured.curve,
            "domains": {"person": person.json()["domains"], "before": measured.before, "after": measured.after},
            "answered": person.answered, "decided": person.decided,
            "readout": aligner.readout().json(), "norm_cap": aligner.range().0,
            "found": aligned.json(), "seconds": seconds, "warnings": warnings,
        }))
    }

    /// First the vector, then the persona that names it; a persona that cannot be stored leaves no vector behind.
    fn store(
        &self,
        request: &AlignmentRequest,
        aligner: &Aligner,
        aligned: &Aligned,
    ) -> Result<Arc<Persona>, AlignmentError> {
        let name = vector_name(&request.name);
        let vector = aligner.vector_of(&name, aligned, Digest::of(&request.answers.raw))?;
        let Some(vector) = vector else {
            return self.create(request, SteeringRequest::default());
        };
        self.parts.library.keep_aligned(vector)?;
        let plan = json!([{"vector": name, "coefficient": 1, "unit": "raw"}]);
        let made = SteeringRequest::from_json(&plan, "persona", RequestRules::default())
            .map_err(AlignmentError::from)
            .and_then(|plan| self.create(request, plan.named("persona")));
        made.inspect_err(|_| drop(self.parts.library.delete(&name)))
    }

    fn create(
        &self,
        request: &AlignmentRequest,
        steering: SteeringRequest,
    ) -> Result<Arc<Persona>, AlignmentError> {
        let description = format!(
            "Aligned ({}) to {} answers to {}",
            request.algorithm.name(),
            request.answers.answered().len(),
            request.inventory.name
        );
        let spec =
            PersonaSpec { system: request.system.clone(), steering, description, ..PersonaSpec::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| AlignmentError::Failed(error.to_string()))?;
        let applied = runtime.block_on(self.parts.library.plan(&spec.steering, NORMS_WAIT))?;
        let digest = persona_digest(&PersonaParts {
            weights: self.parts.engine.info().weights_digest,
            template: Digest::of(self.parts.text.template().source().as_bytes()),
            system: &spec.system,
            edits: applied.edits.digest(),
            soft: PersonaSoft::None,
            sampling: &spec.sampling,
            card: None,
        });
        Ok(self.parts.personas.create(&request.name, spec, digest)?)
    }
}

/// Name of the vector that a persona's alignment is stored as.
fn vector_name(persona: &str) -> String {
    format!("{persona}{SUFFIX}")
}

/// What the vector does to the answers.
struct Measured {
    curve: Value,
    before: Value,
    after: Value,
}

/// The distance to the person at three strengths, and the domains without and with the vector, by forward passes.
fn measure(
    aligner: &Aligner,
    aligned: &Aligned,
    answers: &Answers,
    told: Told<'_>,
) -> Result<Measured, AlignmentError> {
    let items = spread(&answers.answered(), MEASURED_ITEMS);
    let all = aligner.plain();
    let plain: Vec<f64> = items.iter().map(|&item| all[item]).collect();
    let total = 2 * items.len() as u64;
    let mut done = 0;
    let mut at = |coefficient: f64| -> Result<Vec<f64>, AlignmentError> {
        let constants: Vec<f64> = aligned.constants.iter().map(|value| coefficient * value).collect();
        let edits = aligner.edits(&constants)?;
        let with =
            aligner.measured(&edits, &items, &mut |asked, message| told(done + asked, total, message))?;
        done += items.len() as u64;
        Ok(with.into_iter().map(|answer| answer.clamp(1.0, 5.0)).collect())
    };
    let (half, whole) = (at(0.5)?, at(1.0)?);
    let point = |coefficient: f64, predicted: &[f64]| json!({"coefficient": coefficient, "score": rounded(aligner.distance(&items, predicted, answers), 4)});
    Ok(Measured {
        curve: json!([point(0.0, &plain), point(0.5, &half), point(1.0, &whole)]),
        before: aligner.domains(&items, &plain),
        after: aligner.domains(&items, &whole),
    })
}
