//! Everything the server holds of a user in one zip archive that any program can read.

use super::error::UsersError;
use super::identity::UserId;
use super::service::{Inner, item, timestamp};
use super::serving::floats;
use crate::limits;
use crate::store::{SoftPromptRow, UserRow};
use crate::sync::lock;
use crate::weights::safetensors;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const ABOUT: &str = "user.json: who this is and what the other files are. history.jsonl: one item a line, in the form \
    that POST /v1/users/{id}/history takes (but for id and created). embeddings.safetensors: for each encoder the \
    vectors of the items, in the order of the metadata's item numbers. soft_prompt.safetensors: for each model the rows \
    of input embeddings made from them. Vectors and rows are derived from the history and are personal data too.";

/// `user.json`, `history.jsonl`, `embeddings.safetensors`, `soft_prompt.safetensors`. Equal content gives equal bytes.
pub(super) fn archive(inner: &Inner, id: &UserId, user: &UserRow) -> Result<Vec<u8>, UsersError> {
    // Each holds a whole history in memory.
    let _one_at_a_time = lock(&inner.exports);
    let (history, items) = history(inner, id)?;
    let prompts = inner.store.soft_prompts_of(&inner.tenant, &id.owner())?;
    let encoders = inner.store.encoders_of(&inner.tenant, id.as_str())?;
    let about = json!({
        "schema": "demeanor.user/1",
        "about": ABOUT,
        "id": user.id,
        "created": timestamp(user.created).to_string(),
        "items": items,
        "version": user.version,
        "encoders": encoders,
        "soft_prompts": prompts.iter().map(|prompt| json!({
            "weights": prompt.weights_digest, "version": prompt.version, "rows": prompt.rows,
            "d_model": prompt.d_model, "made": prompt.spec,
        })).collect::<Vec<_>>(),
    });
    let about = serde_json::to_vec_pretty(&about).map_err(|error| UsersError::Internal(error.to_string()))?;
    let mut zip = Archive::new();
    zip.add("user.json", &about)?;
    zip.add("history.jsonl", &history)?;
    zip.add("embeddings.safetensors", &embeddings(inner, id, &encoders)?)?;
    zip.add("soft_prompt.safetensors", &soft_prompts(&prompts))?;
    zip.finish()
}

/// One line an item, and how many.
fn history(inner: &Inner, id: &UserId) -> Result<(Vec<u8>, usize), UsersError> {
    let (mut lines, mut count, mut after) = (Vec::new(), 0, 0);
    loop {
        let rows = inner.store.history(&inner.tenant, id.as_str(), after, limits::HISTORY_PAGE_MAX)?;
        let Some(last) = rows.last() else { return Ok((lines, count)) };
        after = last.id;
        for row in rows {
            lines.extend_from_slice(item(row)?.to_json().to_string().as_bytes());
            lines.push(b'\n');
            count += 1;
        }
    }
}

/// A tensor `[n, width]` for each encoder, named by the encoder's digest; its items are in the metadata.
fn embeddings(inner: &Inner, id: &UserId, encoders: &[String]) -> Result<Vec<u8>, UsersError> {
    let mut metadata = BTreeMap::from([("schema".to_owned(), "demeanor.embeddings/1".to_owned())]);
    let mut tensors: Vec<(&str, [usize; 2], Vec<f32>)> = Vec::new();
    for encoder in encoders {
        let rows = inner.store.embeddings(&inner.tenant, id.as_str(), encoder)?;
        let numbers: Vec<String> = rows.iter().map(|(item, _)| item.to_string()).collect();
        metadata.insert(format!("items.{encoder}"), numbers.join(","));
        let width = rows.first().map_or(0, |(_, data)| data.len() / 4);
        tensors.push((
            encoder,
            [rows.len(), width],
            rows.iter().flat_map(|(_, data)| floats(data)).collect(),
        ));
    }
    let views: Vec<(&str, &[usize], &[f32])> =
        tensors.iter().map(|(name, shape, values)| (*name, &shape[..], &values[..])).collect();
    Ok(safetensors::write(&metadata, &views))
}

/// A tensor `[rows, d_model]` for each model, named by the digest of its weights.
fn soft_prompts(prompts: &[SoftPromptRow]) -> Vec<u8> {
    let metadata = BTreeMap::from([("schema".to_owned(), "demeanor.soft-prompts/1".to_owned())]);
    let tensors: Vec<(&str, [usize; 2], Vec<f32>)> = (prompts.iter())
        .map(|prompt| {
            let shape = [prompt.rows as usize, prompt.d_model as usize];
            (prompt.weights_digest.as_str(), shape, floats(&prompt.data))
        })
        .collect();
    let views: Vec<(&str, &[usize], &[f32])> =
        tensors.iter().map(|(name, shape, values)| (*name, &shape[..], &values[..])).collect();
    safetensors::write(&metadata, &views)
}

/// A zip archive in memory.
pub(super) struct Archive(ZipWriter<Cursor<Vec<u8>>>);

impl Archive {
    pub fn new() -> Archive {
        Archive(ZipWriter::new(Cursor::new(Vec::new())))
    }

    pub fn add(&mut self, name: &str, content: &[u8]) -> Result<(), UsersError> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(0o600);
        self.0.start_file(name, options).map_err(failed)?;
        self.0.write_all(content).map_err(|error| failed(error.into()))
    }

    pub fn finish(self) -> Result<Vec<u8>, UsersError> {
        Ok(self.0.finish().map_err(failed)?.into_inner())
    }
}

fn failed(error: zip::result::ZipError) -> UsersError {
    UsersError::Internal(format!("the archive could not be written: {error}"))
}
