//! Named soft prompts: rows of input embeddings from outside, checked against the loaded model and kept in the store.
//!
//! Rows come from anybody's file, so what a token could not do they may not do either: their length stays near that of
//! the model's own embeddings, and none stands in for a control token.

use super::error::UsersError;
use super::export::Archive;
use super::formats::{self, Format, Imported, Peft, RowTable};
use super::prompt::NamedPrompt;
use super::serving::{bytes, floats};
use super::time::Timestamp;
use crate::digest::Digest;
use crate::engine::EngineInfo;
use crate::limits::{CONTROL_COSINE_MAX, SOFT_PROMPTS_MAX, SOFT_ROW_NORM_MAX, SOFT_ROW_NORM_MIN};
use crate::model::{EmbeddingFacts, SoftRows};
use crate::names::is_valid_name;
use crate::store::{SoftPromptRow, Store, Tenant};
use crate::sync::lock;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// The named soft prompts of the loaded model; cheap to clone. All functions block on the disk.
#[derive(Clone)]
pub struct SoftPrompts {
    store: Store,
    tenant: Tenant,
    model: Arc<ModelFacts>,
    /// Held while a name is looked up and written.
    writing: Arc<Mutex<()>>,
}

/// What rows are checked against.
struct ModelFacts {
    weights: Digest,
    d_model: usize,
    embedding: Arc<EmbeddingFacts>,
}

/// One soft prompt as others may see it.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftPromptInfo {
    pub name: String,
    /// Goes up each time the name is written.
    pub version: u32,
    pub rows: usize,
    pub d_model: usize,
    /// Of the rows; what answers bind to.
    pub digest: Digest,
    /// The format it came in: `peft`, `safetensors` or `json`.
    pub format: String,
    /// The model that its file named, if any.
    pub base_model: Option<String>,
    pub created: Timestamp,
}

impl SoftPrompts {
    pub fn new(store: Store, info: &EngineInfo) -> SoftPrompts {
        let model = ModelFacts {
            weights: info.weights_digest,
            d_model: info.d_model as usize,
            embedding: info.embedding.clone(),
        };
        SoftPrompts { store, tenant: Tenant::local(), model: Arc::new(model), writing: Arc::default() }
    }

    /// Stores rows under a name. A name that is taken is an error unless `replace`.
    pub fn put(&self, name: &str, imported: Imported, replace: bool) -> Result<SoftPromptInfo, UsersError> {
        check_name(name)?;
        self.model.check(&imported.table)?;
        let table = &imported.table;
        let rows = SoftRows::new(table.values().to_vec(), table.rows(), table.d_model())
            .ok_or_else(|| UsersError::Internal("rows that were checked are not finite".into()))?;
        let spec = json!({
            "format": imported.format,
            "base_model": imported.base_model,
            "digest": rows.digest().to_string(),
            "created": super::now().unix(),
        });
        let row = SoftPromptRow {
            owner: owner(name),
            weights_digest: self.weights(),
            version: 0,
            rows: table.rows() as i64,
            d_model: table.d_model() as i64,
            data: bytes(table.values()),
            spec,
        };
        let _one = lock(&self.writing);
        match self.row(name)? {
            Some(_) if !replace => return Err(UsersError::SoftPromptExists { name: name.to_owned() }),
            Some(_) => {}
            None if self.count()? >= SOFT_PROMPTS_MAX as u64 => {
                return Err(UsersError::TooManySoftPrompts { max: SOFT_PROMPTS_MAX });
            }
            None => {}
        }
        self.store.put_soft_prompt(&self.tenant, row)?;
        self.show(name)
    }

    /// The rows of a name for the loaded model; `None` where there is no such name.
    pub fn get(&self, name: &str) -> Result<Option<NamedPrompt>, UsersError> {
        let Some(row) = self.row(name)? else { return Ok(None) };
        let label = format!("{name}@{}", row.version);
        Ok(Some(NamedPrompt { rows: soft_rows(&row)?, label }))
    }

    pub fn show(&self, name: &str) -> Result<SoftPromptInfo, UsersError> {
        info(&self.existing(name)?)
    }

    /// All of the loaded model, by name.
    pub fn list(&self) -> Result<Vec<SoftPromptInfo>, UsersError> {
        let rows = self.store.soft_prompts(&self.tenant, NAMES, &self.weights())?;
        rows.iter().map(info).collect()
    }

    /// Whatever is served with the rows ends as usual; no new request gets them.
    pub fn delete(&self, name: &str) -> Result<(), UsersError> {
        match self.store.delete_soft_prompt(&self.tenant, &owner(name), &self.weights())? {
            true => Ok(()),
            false => Err(unknown(name)),
        }
    }

    /// The rows as a file: a zip with an adapter's two files, or one safetensors file.
    pub fn export(&self, name: &str, format: Format, base_model: &str) -> Result<Vec<u8>, UsersError> {
        let files = self.files(name, base_model)?;
        match format {
            Format::Safetensors => Ok(files.adapter),
            Format::Peft => {
                let mut zip = Archive::new();
                zip.add(formats::CONFIG, &files.config)?;
                zip.add(formats::ADAPTER, &files.adapter)?;
                zip.finish()
            }
        }
    }

    /// The two files of a PEFT adapter.
    pub fn files(&self, name: &str, base_model: &str) -> Result<AdapterFiles, UsersError> {
        let row = self.existing(name)?;
        let table = RowTable::new(floats(&row.data), row.rows as usize, row.d_model as usize)
            .map_err(|_| damaged(&row))?;
        let config = Peft::write(&table, base_model)?;
        Ok(AdapterFiles { config, adapter: formats::write_safetensors(&table) })
    }

    fn existing(&self, name: &str) -> Result<SoftPromptRow, UsersError> {
        self.row(name)?.ok_or_else(|| unknown(name))
    }

    /// A name that nothing can have is a name that nothing has.
    fn row(&self, name: &str) -> Result<Option<SoftPromptRow>, UsersError> {
        match check_name(name) {
            Ok(()) => Ok(self.store.soft_prompt(&self.tenant, &owner(name), &self.weights())?),
            Err(_) => Ok(None),
        }
    }

    fn count(&self) -> Result<u64, UsersError> {
        Ok(self.store.soft_prompt_count(&self.tenant, NAMES, &self.weights())?)
    }

    fn weights(&self) -> String {
        self.model.weights.to_string()
    }
}

/// What PEFT keeps in a folder.
pub struct AdapterFiles {
    /// `adapter_config.json`.
    pub config: Vec<u8>,
    /// `adapter_model.safetensors`.
    pub adapter: Vec<u8>,
}

impl ModelFacts {
    /// Rows must be ones that the model could meet: of its width, neither tiny nor huge, none a control token.
    fn check(&self, table: &RowTable) -> Result<(), UsersError> {
        if table.d_model() != self.d_model {
            let (given, wanted) = (table.d_model(), self.d_model);
            let rule = format!("rows of {given} values; the loaded model has d_model {wanted}");
            return Err(UsersError::SoftPromptFile { rule });
        }
        let median = self.embedding.norm_median;
        let (low, high) = (SOFT_ROW_NORM_MIN * median, SOFT_ROW_NORM_MAX * median);
        for (row, values) in table.iter().enumerate() {
            let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
            if !(low..=high).contains(&norm) {
                return Err(UsersError::SoftPromptRange { row, norm, low, high });
            }
            if let Some(token) = self.embedding.alias(values, CONTROL_COSINE_MAX) {
                return Err(UsersError::ControlTokenAlias { row, token });
            }
        }
        Ok(())
    }
}

/// How an owner in the store begins that is a name and no user.
const NAMES: &str = "name:";

fn owner(name: &str) -> String {
    format!("{NAMES}{name}")
}

fn check_name(name: &str) -> Result<(), UsersError> {
    match is_valid_name(name) {
        true => Ok(()),
        false => Err(UsersError::item("name", "names match [a-z0-9][a-z0-9._-]{0,63}")),
    }
}

fn unknown(name: &str) -> UsersError {
    UsersError::UnknownSoftPrompt { name: name.chars().take(80).collect() }
}

fn soft_rows(row: &SoftPromptRow) -> Result<SoftRows, UsersError> {
    SoftRows::new(floats(&row.data), row.rows as usize, row.d_model as usize).ok_or_else(|| damaged(row))
}

fn damaged(row: &SoftPromptRow) -> UsersError {
    UsersError::Internal(format!("the rows of `{}` in the store are damaged", row.owner))
}

fn info(row: &SoftPromptRow) -> Result<SoftPromptInfo, UsersError> {
    let text = |key: &str| row.spec.get(key).and_then(Value::as_str);
    let created = row.spec.get("created").and_then(Value::as_i64).and_then(Timestamp::from_unix);
    Ok(SoftPromptInfo {
        name: row.owner.strip_prefix(NAMES).unwrap_or(&row.owner).to_owned(),
        version: u32::try_from(row.version).unwrap_or(0),
        rows: row.rows as usize,
        d_model: row.d_model as usize,
        digest: soft_rows(row)?.digest(),
        format: text("format").unwrap_or("unknown").to_owned(),
        base_model: text("base_model").map(str::to_owned),
        created: created.unwrap_or(Timestamp::EPOCH),
    })
}

#[cfg(test)]
mod tests;
