//! `/v1/users`: people whose history makes a soft prompt; reading, export and deletion of all that is held of them.

use crate::limits;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::body::{media_type, read, read_map, read_object};
use crate::server::connection::ConnectionState;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, missing, wrong_kind};
use crate::server::json;
use crate::server::multipart::turn;
use crate::server::path::{Segment, Segments};
use crate::server::query::{QueryMap, check_query, whole};
use crate::users::{NewItem, Receipt, UserPrompt, UserState, Users, UsersError, now};
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Content types under which a history may come line by line.
const LINES: [&str; 4] =
    ["application/jsonl", "application/x-ndjson", "application/x-jsonlines", "application/ndjson"];

/// The store and the encoder work on a thread of their own.
async fn on_disk<T: Send + 'static>(
    context: &Context,
    work: impl FnOnce(&Users) -> Result<T, UsersError> + Send + 'static,
) -> Result<T, ApiError> {
    let users = context.users.clone();
    blocking(move || work(&users)).await
}

/// `GET /v1/users?after=ID&limit=N`: by id.
pub async fn list_users(
    State(context): State<Arc<Context>>,
    Query(query): Query<QueryMap>,
) -> Result<Json<Value>, ApiError> {
    check_query(&query, &["after", "limit"])?;
    let limit = whole(&query, "limit", 1..=limits::USERS_PAGE_MAX as i64)?.unwrap_or(100) as usize;
    let after = query.get("after").cloned();
    let mut page = on_disk(&context, move |users| users.list(after.as_deref(), limit + 1)).await?;
    let has_more = page.len() > limit;
    page.truncate(limit);
    let data: Vec<Value> = (page.iter())
        .map(|user| {
            let (id, created) = (&user.id, user.created);
            json!({"object": "user", "id": id, "created": created, "items": user.items, "version": user.version})
        })
        .collect();
    let last = page.last().map(|user| &user.id);
    Ok(Json(json!({"object": "list", "data": data, "has_more": has_more, "last_id": last})))
}

/// `POST /v1/users`: 201, or 409 where there is one.
pub async fn create_user(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let (_, map) = read_object(request).await?;
    let mut fields = Fields::new(map);
    let id = fields.string("id")?.ok_or_else(|| missing("id"))?;
    fields.finish(&["id"])?;
    let state = on_disk(&context, move |users| users.create(&id)).await?;
    Ok((StatusCode::CREATED, Json(described(&state))).into_response())
}

/// `GET /v1/users/{id}`.
pub async fn show_user(
    State(context): State<Arc<Context>>,
    Segment(id): Segment,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(described(&on_disk(&context, move |users| users.show(&id)).await?)))
}

/// `DELETE /v1/users/{id}`: when it answers, nothing of the user is left. Running requests of theirs have ended.
pub async fn delete_user(
    State(context): State<Arc<Context>>,
    Segment(id): Segment,
) -> Result<Json<Value>, ApiError> {
    let removed = id.clone();
    let personas = context.personas.clone();
    let receipt = on_disk(&context, move |users| {
        let receipt = users.delete(&id)?;
        personas.forget_user(&id);
        Ok(receipt)
    })
    .await?;
    Ok(Json(deleted("user.deleted", &removed, &receipt)))
}

/// `POST /v1/users/{id}/history`: JSON (`{"items": [...]}`) or one item a line; all items or none.
pub async fn add_history(
    State(context): State<Arc<Context>>,
    Segment(id): Segment,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    // An unknown user is said before a long body is read.
    let known = id.clone();
    on_disk(&context, move |users| users.exists(&known)).await?;
    let items = read_items(&context, request).await?;
    let added = on_disk(&context, move |users| users.add(&id, items)).await?;
    Ok(Json(json!({
        "added": added.added, "duplicates": added.duplicates, "total": added.total,
        "embedded": added.embedded, "version": added.version,
    })))
}

/// `GET /v1/users/{id}/history?after=ITEM&limit=N`: in the order in which items came.
pub async fn list_history(
    State(context): State<Arc<Context>>,
    Segment(id): Segment,
    Query(query): Query<QueryMap>,
) -> Result<Json<Value>, ApiError> {
    check_query(&query, &["after", "limit"])?;
    let limit = whole(&query, "limit", 1..=limits::HISTORY_PAGE_MAX as i64)?.unwrap_or(100) as usize;
    let after = whole(&query, "after", 0..=i64::MAX)?.unwrap_or(0);
    let mut page = on_disk(&context, move |users| users.history(&id, after, limit + 1)).await?;
    let has_more = page.len() > limit;
    page.truncate(limit);
    let data: Vec<Value> = page.iter().map(|item| item.to_json()).collect();
    let last = page.last().map(|item| item.id.to_string());
    Ok(Json(json!({"object": "list", "data": data, "has_more": has_more, "last_id": last})))
}

/// `DELETE /v1/users/{id}/history/{item}`: the item and all that was derived from it.
pub async fn delete_item(
    State(context): State<Arc<Context>>,
    Segments((id, item)): Segments<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let removed = item.clone();
    let receipt = on_disk(&context, move |users| users.delete_item(&id, &item)).await?;
    Ok(Json(deleted("user.history.deleted", &removed, &receipt)))
}

/// `GET /v1/users/{id}/export`: a zip archive.
pub async fn export_user(
    State(context): State<Arc<Context>>,
    Segment(id): Segment,
) -> Result<Response<Body>, ApiError> {
    let archive = on_disk(&context, move |users| users.export(&id)).await?;
    let mut response = Response::new(Body::from(archive));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    let attachment = HeaderValue::from_static("attachment; filename=\"user.zip\"");
    headers.insert(header::CONTENT_DISPOSITION, attachment);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn described(state: &UserState) -> Value {
    let (soft_prompt, warnings) = match &state.prompt {
        UserPrompt::Ready { rows, label, effect, .. } => {
            (json!({"label": label, "rows": rows.len(), "effect": effect}), Vec::new())
        }
        UserPrompt::NotReady(why) => (Value::Null, vec![why.as_str()]),
        UserPrompt::Unknown => (Value::Null, Vec::new()),
    };
    json!({
        "object": "user", "id": state.id, "created": state.created.unix(), "items": state.items,
        "embedded": state.embedded, "version": state.version, "soft_prompt": soft_prompt, "warnings": warnings,
    })
}

/// The answer to a deletion: what was removed, and what ended with it.
fn deleted(object: &str, id: &str, receipt: &Receipt) -> Value {
    let removed = json!({
        "items": receipt.items, "embeddings": receipt.embeddings, "soft_prompts": receipt.soft_prompts,
        "reports": receipt.reports, "jobs": receipt.jobs, "persona_versions": receipt.personas,
    });
    json!({
        "object": object, "id": id, "deleted": true, "removed": removed,
        "requests_ended": receipt.requests, "kv_pages_cleared": receipt.kv_pages,
    })
}

/// The checked items of a body.
async fn read_items(context: &Context, request: Request) -> Result<Vec<NewItem>, ApiError> {
    let as_lines = media_type(request.headers()).is_some_and(|kind| LINES.contains(&kind.as_str()));
    if as_lines {
        let (parts, body) = request.into_parts();
        let connection = parts.extensions.get::<Arc<ConnectionState>>().cloned();
        let bytes =
            read(&parts.headers, body, limits::HISTORY_BODY_BYTES_MAX, connection).await.map_err(in_parts)?;
        let _turn = turn(context).await?;
        return lines(&bytes);
    }
    let (_, map) = read_map(request, limits::HISTORY_BODY_BYTES_MAX).await.map_err(in_parts)?;
    let _turn = turn(context).await?;
    let mut fields = Fields::new(map);
    let items = match fields.take("items") {
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_kind("items", &other, "an array of objects")),
        None => return Err(missing("items")),
    };
    fields.finish(&["items"])?;
    check_count(items.len())?;
    let object = |(index, item): (usize, Value)| match item {
        Value::Object(map) => item_at(index, map),
        other => Err(wrong_kind(&format!("items[{index}]"), &other, "an object")),
    };
    items.into_iter().enumerate().map(object).collect()
}

/// JSON Lines: blank lines count for nothing.
fn lines(bytes: &[u8]) -> Result<Vec<NewItem>, ApiError> {
    let mut items = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        check_count(items.len() + 1)?;
        let index = items.len();
        let item = json::object(line)
            .map_err(|error| ApiError { param: Some(format!("items[{index}]")), ..error })
            .and_then(|map| item_at(index, map))
            .map_err(|error| ApiError {
                message: format!("line {}: {}", number + 1, error.message),
                ..error
            })?;
        items.push(item);
    }
    check_count(items.len())?;
    Ok(items)
}

fn item_at(index: usize, map: Map<String, Value>) -> Result<NewItem, ApiError> {
    Ok(NewItem::from_json(map, &format!("items[{index}]"), now())?)
}

fn check_count(given: usize) -> Result<(), ApiError> {
    let most = limits::HISTORY_ITEMS_AT_ONCE_MAX;
    match given {
        0 => Err(ApiError::at(ErrorCode::InvalidValue, "items", "there is no item")),
        given if given > most => {
            let message = format!("more than {most} items in one request; hint: send the history in parts");
            Err(ApiError::at(ErrorCode::BodyTooLarge, "items", message))
        }
        _ => Ok(()),
    }
}

/// What to do about a body that is too large.
fn in_parts(error: ApiError) -> ApiError {
    match error.code {
        ErrorCode::BodyTooLarge => {
            let most = limits::HISTORY_ITEMS_AT_ONCE_MAX;
            let message =
                format!("{}; hint: send the history in parts of at most {most} items", error.message);
            ApiError { message, ..error }
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_items() {
        let items = lines(b"{\"text\":\"a\"}\r\n\n  \n{\"text\":\"b\",\"weight\":-1}").expect("two items");
        assert_eq!(
            items.iter().map(|item| (item.text.as_str(), item.weight)).collect::<Vec<_>>(),
            [("a", 1.0), ("b", -1.0)]
        );
        let table: [(&[u8], &str, &str); 5] = [
            (b"", "items", "there is no item"),
            (b"{\"text\":\"a\"}\n[]", "items[1]", "line 2: the body must be a JSON object"),
            (
                b"\n{\"text\":\"a\",\"weight\":2}",
                "items[0].weight",
                "line 2: `items[0].weight`: 2 is out of range",
            ),
            (b"{\"text\":\"a\",\"text\":\"b\"}", "items[0]", "line 1: the field `text` occurs twice"),
            (b"{\"text\":\"\xff\"}", "items[0]", "line 1: the body is not UTF-8"),
        ];
        for (bytes, param, message) in table {
            let error = lines(bytes).expect_err("refused");
            assert_eq!(error.param.as_deref(), Some(param));
            assert!(
                error.message.starts_with(message) || error.message.contains(message),
                "{}",
                error.message
            );
        }
        let many = b"{\"text\":\"a\"}\n".repeat(limits::HISTORY_ITEMS_AT_ONCE_MAX + 1);
        assert_eq!(lines(&many).expect_err("too many").code, ErrorCode::BodyTooLarge);
    }
}
