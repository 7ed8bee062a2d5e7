//! `/v1/soft_prompts`: rows of input embeddings under a name, in and out.

use crate::limits;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::body::{media_type, read_map};
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, missing, wrong_kind};
use crate::server::multipart::{Parts, turn};
use crate::server::path::Segment;
use crate::server::query::QueryMap;
use crate::users::formats::{self, Format, Imported, RowTable};
use crate::users::{SoftPromptInfo, SoftPrompts, UsersError};
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use std::sync::Arc;

/// Files are read and written on a thread of their own.
async fn on_disk<T: Send + 'static>(
    context: &Context,
    work: impl FnOnce(&SoftPrompts) -> Result<T, UsersError> + Send + 'static,
) -> Result<T, ApiError> {
    let prompts = context.users.soft_prompts().clone();
    blocking(move || work(&prompts)).await
}

/// `GET /v1/soft_prompts`: those of the loaded model, by name.
pub async fn list_soft_prompts(State(context): State<Arc<Context>>) -> Result<Json<Value>, ApiError> {
    let list = on_disk(&context, SoftPrompts::list).await?;
    let data: Vec<Value> = list.iter().map(described).collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

/// `GET /v1/soft_prompts/{name}`.
pub async fn show_soft_prompt(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(described(&on_disk(&context, move |prompts| prompts.show(&name)).await?)))
}

/// `DELETE /v1/soft_prompts/{name}`.
pub async fn delete_soft_prompt(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
) -> Result<Json<Value>, ApiError> {
    let removed = name.clone();
    on_disk(&context, move |prompts| prompts.delete(&name)).await?;
    Ok(Json(json!({"name": removed, "deleted": true})))
}

/// `GET /v1/soft_prompts/{name}/file?format=`: safetensors unless a PEFT adapter (a zip of its two files) is asked for.
pub async fn export_soft_prompt(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
    Query(query): Query<QueryMap>,
) -> Result<Response<Body>, ApiError> {
    let format = match query.get("format") {
        Some(format) => Format::parse(format, "format")?,
        None => Format::Safetensors,
    };
    let model = context.model.clone();
    let file = on_disk(&context, move |prompts| prompts.export(&name, format, &model)).await?;
    let mut response = Response::new(Body::from(file));
    let kind = match format {
        Format::Peft => "application/zip",
        Format::Safetensors => "application/octet-stream",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// `POST /v1/soft_prompts`: a file with an optional PEFT configuration (multipart), or rows as JSON.
pub async fn upload_soft_prompt(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let turn = turn(&context).await?;
    let upload = match media_type(request.headers()).as_deref() {
        Some("multipart/form-data") => read_parts(request).await?,
        _ => read_json(request).await?,
    };
    let info = on_disk(&context, move |prompts| {
        // The turn ends with the work, also when the client is gone before.
        let _turn = turn;
        let imported = match upload.content {
            Content::File { file, config } => formats::read(&file, config.as_deref())?,
            Content::Rows(table) => Imported { table, format: "json", base_model: None },
        };
        prompts.put(&upload.name, imported, upload.replace)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(described(&info))).into_response())
}

/// What is to be stored.
struct Upload {
    name: String,
    replace: bool,
    content: Content,
}

enum Content {
    File { file: Vec<u8>, config: Option<Vec<u8>> },
    Rows(RowTable),
}

async fn read_parts(request: Request) -> Result<Upload, ApiError> {
    let mut parts = Parts::read(request, &["file", "config", "name", "replace"]).await?;
    let file = parts.required("file")?;
    if file.len() > limits::SOFT_PROMPT_FILE_BYTES_MAX {
        let message =
            format!("{} bytes; at most {} are taken", file.len(), limits::SOFT_PROMPT_FILE_BYTES_MAX);
        return Err(ApiError::at(ErrorCode::BodyTooLarge, "file", message));
    }
    let content = Content::File { file, config: parts.take("config") };
    Ok(Upload { name: parts.text("name")?, replace: parts.flag("replace")?, content })
}

async fn read_json(request: Request) -> Result<Upload, ApiError> {
    let (_, map) = read_map(request, limits::JSON_UPLOAD_BYTES_MAX).await?;
    let mut fields = Fields::new(map);
    let name = fields.string("name")?.ok_or_else(|| missing("name"))?;
    let replace = fields.bool("replace")?.unwrap_or(false);
    let rows = fields.take("rows").ok_or_else(|| missing("rows"))?;
    fields.finish(&["name", "rows", "replace"])?;
    Ok(Upload { name, replace, content: Content::Rows(read_rows(rows)?) })
}

/// `[[number, ...], ...]`, all of one length.
fn read_rows(rows: Value) -> Result<RowTable, ApiError> {
    let Value::Array(rows) = rows else { return Err(wrong_kind("rows", &rows, "an array of rows")) };
    let (count, mut width, mut values) = (rows.len(), None, Vec::new());
    if count > limits::SOFT_ROWS_MAX {
        let message = format!("{count} rows are too many; at most {}", limits::SOFT_ROWS_MAX);
        return Err(ApiError::at(ErrorCode::SoftPromptDoesNotFit, "rows", message));
    }
    for (index, row) in rows.into_iter().enumerate() {
        let path = format!("rows[{index}]");
        let Value::Array(row) = row else { return Err(wrong_kind(&path, &row, "an array of numbers")) };
        if *width.get_or_insert(row.len()) != row.len() {
            let message = format!("{} values; the rows before it have another number", row.len());
            return Err(ApiError::at(ErrorCode::SoftPromptDoesNotFit, path, message));
        }
        for (at, value) in row.iter().enumerate() {
            let number =
                value.as_f64().ok_or_else(|| wrong_kind(&format!("{path}[{at}]"), value, "a number"))?;
            values.push(number as f32);
        }
    }
    Ok(RowTable::new(values, count, width.unwrap_or(0))?)
}

fn described(info: &SoftPromptInfo) -> Value {
    json!({
        "object": "soft_prompt",
        "name": info.name,
        "version": info.version,
        "rows": info.rows,
        "d_model": info.d_model,
        "digest": info.digest.to_string(),
        "format": info.format,
        "base_model": info.base_model,
        "created": info.created.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_as_typed() {
        let table = read_rows(json!([[1, 2.5], [-3, 0]])).expect("good rows");
        assert_eq!((table.rows(), table.d_model(), table.values()), (2, 2, &[1.0, 2.5, -3.0, 0.0][..]));
        let status = |code: ErrorCode| code.status().as_u16();
        for (rows, param, expected) in [
            (json!("x"), Some("rows"), 400),
            (json!([1]), Some("rows[0]"), 400),
            (json!([[1, "x"]]), Some("rows[0][1]"), 400),
            (json!([[1, null]]), Some("rows[0][1]"), 400),
            (json!([[1, 2], [1]]), Some("rows[1]"), 422),
            (json!(vec![vec![1.0]; 65]), Some("rows"), 422),
            (json!([]), None, 422),
            (json!([[]]), None, 422),
            (json!([[1e39]]), None, 422),
        ] {
            let error = read_rows(rows.clone()).expect_err("bad rows");
            assert_eq!((error.param.as_deref(), status(error.code)), (param, expected), "{rows}");
        }
    }
}
