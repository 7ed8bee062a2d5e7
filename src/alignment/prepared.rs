//! What alignment knows of a model and an inventory before any person: readout, gradients, the range where they hold. Kept
//! in a file, since it takes a minute to measure.

use super::AlignmentError;
use super::forms::Form;
use super::gradients::Gradients;
use super::inventory::Inventory;
use crate::digest::{Digest, Digester};
use crate::limits;
use crate::model::Place;
use crate::statistics::{line, standard_deviation};
use crate::weights::safetensors::{self, Bounds, Safetensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

const SCHEMA: &str = "demeanor.alignment.prepared/1";
const BOUNDS: Bounds = Bounds { header_bytes: limits::VECTOR_HEADER_BYTES_MAX, tensors: 8 };
/// Spread of answers over items where no norms say how large it is: about that of the shipped inventories.
const SPREAD_WITHOUT_NORMS: f64 = 0.7;

/// How a model's answer is read: `slope * signal + intercept`.
#[derive(Clone, Debug, PartialEq)]
pub struct Readout {
    pub form: &'static Form,
    /// Mean log-probability of each option over the known items, without a plan.
    pub bias: Vec<f64>,
    pub slope: f64,
    pub intercept: f64,
    /// Correlation of the signal with the norms over the known items, for each form that the model can do; empty where
    /// there are no norms.
    pub correlations: BTreeMap<String, f64>,
}

impl Readout {
    pub fn answer(&self, signal: f64) -> f64 {
        self.slope * signal + self.intercept
    }

    /// Fits slope and intercept to the norms of the known items; without norms the answers have the middle of the scale
    /// as mean and a usual spread.
    pub fn fitted(
        form: &'static Form,
        bias: Vec<f64>,
        signals: &[f64],
        inventory: &Inventory,
        correlations: BTreeMap<String, f64>,
    ) -> Readout {
        let known = inventory.known();
        let normed: Vec<(f64, f64)> =
            known.iter().filter_map(|&i| Some((signals[i], inventory.items[i].norm?.mean))).collect();
        let (slope, intercept) = if normed.len() == known.len() {
            let (x, y): (Vec<f64>, Vec<f64>) = normed.into_iter().unzip();
            line(&x, &y)
        } else {
            let own: Vec<f64> = known.iter().map(|&i| signals[i]).collect();
            let slope = SPREAD_WITHOUT_NORMS / standard_deviation(&own).max(1e-6);
            (slope, 3.0 - slope * crate::statistics::mean(&own))
        };
        Readout { form, bias, slope, intercept, correlations }
    }

    pub fn json(&self) -> Value {
        json!({
            "form": self.form.name, "slope": self.slope, "intercept": self.intercept,
            "correlation": self.correlations.get(self.form.name), "correlations": self.correlations,
        })
    }
}

/// What the measurements depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub weights: Digest,
    pub inventory: Digest,
    /// [`crate::engine::EngineInfo::arithmetic`]: signals are measured through the engine.
    pub arithmetic: String,
}

impl Key {
    /// Name of the file without its extension.
    pub fn stem(&self) -> String {
        let mut digester = Digester::new(SCHEMA);
        digester.part(&self.weights.0).part(&self.inventory.0).part(self.arithmetic.as_bytes());
        format!("alignment-{}", digester.finish().short(32))
    }
}

/// Measured once.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    pub readout: Readout,
    /// Signal of every item without a plan.
    pub signals: Vec<f64>,
    pub gradients: Gradients,
    /// First block that ridge moves: earlier ones carry much of the gradient and answer far from linearly.
    pub first_block: usize,
    /// Norm of the constants up to which answers follow the gradients.
    pub norm_cap: f64,
    /// Norms that were tried with the correlation of real and first-order changes.
    pub linearity: Vec<(f64, f64)>,
}

impl Prepared {
    /// A file that other programs can read too: `scripts/reference_alignment.py` does.
    pub fn write(&self, path: &Path, key: &Key) -> Result<(), AlignmentError> {
        let place = match self.gradients.place {
            Place::Heads => "heads",
            Place::Attention => "attention",
        };
        let metadata = BTreeMap::from([
            ("schema".to_owned(), SCHEMA.to_owned()),
            ("weights".to_owned(), key.weights.to_string()),
            ("inventory".to_owned(), key.inventory.to_string()),
            ("arithmetic".to_owned(), key.arithmetic.clone()),
            ("form".to_owned(), self.readout.form.name.to_owned()),
            ("place".to_owned(), place.to_owned()),
            ("first_block".to_owned(), self.first_block.to_string()),
            ("norm_cap".to_owned(), self.norm_cap.to_string()),
            ("correlations".to_owned(), json!(self.readout.correlations).to_string()),
        ]);
        let floats = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
        let (signals, bias) = (floats(&self.signals), floats(&self.readout.bias));
        let linearity: Vec<f32> = self.linearity.iter().flat_map(|(s, r)| [*s as f32, *r as f32]).collect();
        let Gradients { n_blocks, width, values, .. } = &self.gradients;
        let shape = [signals.len(), *n_blocks, *width];
        let bytes = safetensors::write(
            &metadata,
            &[
                ("bias", &[bias.len()], &bias),
                ("gradients", &shape, values),
                ("linearity", &[self.linearity.len(), 2], &linearity),
                ("signals", &[signals.len()], &signals),
            ],
        );
        write_file(path, &bytes)
    }

    /// `None` where there is no file, or one that does not say what it should: then it is measured again.
    pub fn read(path: &Path, key: &Key, inventory: &Inventory) -> Option<Prepared> {
        let bytes = read_file(path)?;
        let file = Safetensors::read(&bytes, BOUNDS).ok()?;
        let label = |name: &str| file.metadata.get(name).map(String::as_str);
        let floats = |name: &str| file.tensors.get(name)?.floats().ok();
        let fits = label("schema")? == SCHEMA
            && label("weights")? == key.weights.to_string()
            && label("inventory")? == key.inventory.to_string()
            && label("arithmetic")? == key.arithmetic;
        let doubles = |name: &str| Some(floats(name)?.into_iter().map(f64::from).collect::<Vec<f64>>());
        let (signals, bias, linearity) = (doubles("signals")?, doubles("bias")?, doubles("linearity")?);
        let form = Form::named(label("form")?)?;
        let [items, n_blocks, width] = file.tensors.get("gradients")?.shape[..] else { return None };
        let counts = items as usize == inventory.items.len() && signals.len() == inventory.items.len();
        if !fits || !counts || bias.len() != form.options.len() {
            return None;
        }
        let place = match label("place")? {
            "heads" => Place::Heads,
            "attention" => Place::Attention,
            _ => return None,
        };
        let (n_blocks, width) = (n_blocks as usize, width as usize);
        let correlations = serde_json::from_str(label("correlations")?).ok()?;
        let values = floats("gradients")?;
        Some(Prepared {
            readout: Readout::fitted(form, bias, &signals, inventory, correlations),
            signals,
            gradients: Gradients { place, n_blocks, width, values },
            first_block: label("first_block")?.parse().ok()?,
            norm_cap: label("norm_cap")?.parse().ok()?,
            linearity: linearity.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(),
        })
    }
}

/// The content of a file of measurements, where there is one of a reasonable size.
pub fn read_file(path: &Path) -> Option<Vec<u8>> {
    let size = fs::metadata(path).ok()?.len();
    (size <= limits::ALIGNMENT_FILE_BYTES_MAX).then(|| fs::read(path).ok())?
}

/// Beside its place first, so that a file that is there is whole.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), AlignmentError> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))
        .and_then(|()| fs::File::create(&part))
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    written
        .inspect_err(|_| drop(fs::remove_file(&part)))
        .map_err(|error| AlignmentError::Failed(format!("cannot write `{}`: {error}", path.display())))
}
