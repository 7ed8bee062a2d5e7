//! `POST /v1/activations`: residual norms and projections on named vectors, per token and block.

use super::before::{self, Before, numbers};
use crate::engine::{Capture, Reduce, Want};
use crate::limits;
use crate::server::Context;
use crate::server::body::read_object;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, wrong_kind};
use crate::server::openai::{Named, demeanor, persona_headers};
use crate::steering::Vector;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;

/// Fields of this route alone.
const FIELDS: [&str; 3] = ["blocks", "vectors", "from"];

/// A vector to project on.
struct Axis {
    /// As the request named it.
    name: String,
    vector: Arc<Vector>,
    /// -1 for the second pole of a trait.
    sign: f32,
}

/// What is read out of the residual stream under the request's condition. Rows are the prompt's tokens from `from` on;
/// soft rows have none.
pub async fn activations(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<(HeaderMap, Json<Value>), ApiError> {
    let (headers, map) = read_object(request).await?;
    let mut fields = Fields::new(map);
    let mut warnings = Vec::new();
    let named = Named::read(&mut fields, &headers, &context)?;
    let mut before = Before::read(&mut fields, &context, &mut warnings)?;
    let blocks = read_blocks(&mut fields, context.engine.info().n_blocks)?;
    let names = read_vectors(&mut fields)?;
    let from = fields.integer("from", 0..=i64::from(u32::MAX))?.unwrap_or(0) as u32;
    fields.finish(&[&FIELDS[..], &before::known()].concat())?;

    let resolved = before.resolve(&context, named).await?;
    warnings.extend(resolved.warnings.iter().cloned());
    let axes = axes(&context, names).await?;
    let condition = before.condition(&context, &resolved);
    let prompt = before.encode(&context, &mut warnings).await?;
    prompt.check_room(&context, &resolved, 0)?;
    let prompt = prompt.ids;
    let tokens = check_size(&context, prompt.len(), from, &blocks)?;

    let want = Want::Capture(Capture::after_blocks(&blocks, from, Reduce::Each));
    // One row per token, `[blocks.len(), d_model]`.
    let (rows, usage) = numbers(&context.engine, condition.request(prompt.clone(), want)).await?;
    let listed: Vec<Value> = prompt[prompt.len() - tokens..]
        .iter()
        .map(|id| json!({"id": id, "text": context.text.tokenizer.token_text(*id)}))
        .collect();
    let d_model = context.engine.info().d_model as usize;
    let mut answer = json!({
        "object": "activations",
        "model": context.model,
        "from": from,
        "tokens": listed,
        "blocks": blocks,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": 0,
            "total_tokens": usage.prompt_tokens,
        },
        "demeanor": demeanor(&resolved, &condition, warnings, &condition.fingerprint(&context.serving()), None),
    });
    // Up to some million products: not on a thread that serves others.
    let numbers = move || (norms(&rows, d_model), axes.iter().map(|axis| axis.of(&rows, &blocks)).collect());
    let (norms, vectors): (Value, Vec<Value>) =
        tokio::task::spawn_blocking(numbers).await.map_err(ApiError::internal)?;
    answer["norms"] = norms;
    answer["vectors"] = vectors.into();
    let mut headers = HeaderMap::new();
    persona_headers(&context, &resolved, &mut headers);
    Ok((headers, Json(answer)))
}

/// Ascending, without repeats; all where none are named.
fn read_blocks(fields: &mut Fields, n_blocks: u32) -> Result<Vec<u32>, ApiError> {
    let items = match fields.take("blocks") {
        None => return Ok((0..n_blocks).collect()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_kind("blocks", &other, "an array of blocks")),
    };
    let mut blocks = Vec::with_capacity(items.len().min(n_blocks as usize));
    for (index, item) in items.iter().enumerate() {
        let block = item.as_u64().filter(|block| *block < u64::from(n_blocks)).ok_or_else(|| {
            let message =
                format!("{item} is no block; the loaded model has the blocks 0 to {}", n_blocks - 1);
            fields.refuse(&format!("blocks[{index}]"), message)
        })?;
        blocks.push(block as u32);
    }
    blocks.sort_unstable();
    blocks.dedup();
    if blocks.is_empty() {
        return Err(fields.refuse("blocks", "an empty list names no block"));
    }
    Ok(blocks)
}

fn read_vectors(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let items = match fields.take("vectors") {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_kind("vectors", &other, "an array of names")),
    };
    if items.len() > limits::PROJECTIONS_MAX {
        let message = format!("{} vectors; at most {}", items.len(), limits::PROJECTIONS_MAX);
        return Err(fields.refuse("vectors", message));
    }
    let one = |(index, item): (usize, Value)| match item {
        Value::String(name) => Ok(name),
        other => Err(wrong_kind(&format!("vectors[{index}]"), &other, "a name")),
    };
    items.into_iter().enumerate().map(one).collect()
}

/// Looks the vectors up; one that a trait promises is made, as for steering.
async fn axes(context: &Context, names: Vec<String>) -> Result<Vec<Axis>, ApiError> {
    let wait = context.extract_wait();
    let mut axes = Vec::with_capacity(names.len());
    for (index, name) in names.into_iter().enumerate() {
        let (vector, sign) = context.library.direction(&name, &format!("vectors[{index}]"), wait).await?;
        axes.push(Axis { name, vector, sign });
    }
    Ok(axes)
}

/// Tokens that count, if there are any and what is captured of them is no more than the server wants to hold.
fn check_size(context: &Context, prompt: usize, from: u32, blocks: &[u32]) -> Result<usize, ApiError> {
    let tokens = prompt.saturating_sub(from as usize);
    if tokens == 0 {
        let message = format!("{from} is behind the last of the prompt's {prompt} tokens");
        return Err(ApiError::at(ErrorCode::InvalidValue, "from", message));
    }
    let per_token = blocks.len() * context.engine.info().d_model as usize;
    let most = limits::CAPTURED_VALUES_MAX / per_token;
    if tokens > most {
        let message = format!(
            "{tokens} tokens at {} blocks are too much at once; at most {most} tokens at so many blocks: name fewer \
             `blocks` or a later `from`",
            blocks.len()
        );
        return Err(ApiError::at(ErrorCode::InvalidValue, "blocks", message));
    }
    Ok(tokens)
}

/// `[tokens][blocks]`
fn norms(rows: &[Vec<f32>], d_model: usize) -> Value {
    let of_row = |row: &Vec<f32>| -> Value { row.chunks_exact(d_model).map(length).collect() };
    rows.iter().map(of_row).collect()
}

fn length(values: &[f32]) -> f32 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32
}

impl Axis {
    /// Signed length of each token's row along the vector, in those of `blocks` where it has a direction.
    fn of(&self, rows: &[Vec<f32>], blocks: &[u32]) -> Value {
        let directions = self.vector.directions();
        // Place of the block in a row, direction there, its length.
        let shared: Vec<(usize, &Arc<[f32]>, f64)> = (blocks.iter().enumerate())
            .filter_map(|(place, block)| {
                let direction = directions.get(block)?;
                Some((place, direction, f64::from(length(direction))))
            })
            .collect();
        let along = |row: &Vec<f32>, (place, direction, size): &(usize, &Arc<[f32]>, f64)| {
            let h = &row[place * direction.len()..][..direction.len()];
            let product: f64 =
                h.iter().zip(direction.iter()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            self.sign * (product / size) as f32
        };
        let of_row = |row: &Vec<f32>| -> Value { shared.iter().map(|place| along(row, place)).collect() };
        json!({
            "name": self.name,
            "blocks": blocks.iter().filter(|block| directions.contains_key(block)).collect::<Vec<_>>(),
            "projections": rows.iter().map(of_row).collect::<Value>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn norms_and_projections() {
        // Two tokens, blocks 1 and 3, d_model 2.
        let rows = vec![vec![3.0, 4.0, 0.0, 2.0], vec![1.0, 0.0, 5.0, 12.0]];
        assert_eq!(norms(&rows, 2), json!([[5.0, 2.0], [1.0, 13.0]]));
        let directions = BTreeMap::from([(0, Arc::from([1.0f32, 0.0])), (3, Arc::from([0.0f32, 0.5]))]);
        let vector = Arc::new(Vector::new("v", directions, "v").unwrap());
        let axis = |sign| Axis { name: "v".into(), vector: vector.clone(), sign };
        let wanted = json!({"name": "v", "blocks": [3], "projections": [[2.0], [12.0]]});
        assert_eq!(axis(1.0).of(&rows, &[1, 3]), wanted);
        assert_eq!(axis(-1.0).of(&rows, &[1, 3])["projections"], json!([[-2.0], [-12.0]]));
        assert_eq!(axis(1.0).of(&rows, &[1, 2])["projections"], json!([[], []]));
    }
}
