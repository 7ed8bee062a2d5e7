//! `/v1/personas`: stored system texts, plans, soft prompts and sampling defaults under a name.
//!
//! A persona is checked as a whole before it is stored: its vectors must be there or be made within `--extract-wait`,
//! its soft prompt must exist, its dose must be allowed. The entity tag is the version.

use crate::limits;
use crate::persona::card::{Card, CardFormat, card_of, import};
use crate::persona::gate::State as Probed;
use crate::persona::{Expected, Persona, PersonaError, PersonaSpec};
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::body::{media_type, read_map};
use crate::server::error::{ApiError, ErrorCode, shown};
use crate::server::fields::{Fields, listed, missing, wrong_kind};
use crate::server::multipart::{Parts, turn};
use crate::server::openai::{digest_checked, digest_now, read_defaults};
use crate::server::path::Segment;
use crate::server::query::{QueryMap, check_query, whole};
use crate::steering::{RequestRules, SteeringRequest};
use crate::users::UserId;
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use std::sync::Arc;

const FIELDS: [&str; 8] =
    ["name", "system", "steering", "soft_prompt", "user", "sampling", "description", "card"];

/// `GET /v1/personas?after=NAME&limit=N`: the newest version of each, by name.
pub async fn list_personas(
    State(context): State<Arc<Context>>,
    Query(query): Query<QueryMap>,
) -> Result<Json<Value>, ApiError> {
    check_query(&query, &["after", "limit"])?;
    let most = limits::PERSONAS_PAGE as i64;
    let limit = whole(&query, "limit", 1..=most)?.unwrap_or(most) as usize;
    let (page, has_more) = context.personas.page(query.get("after").map(String::as_str), limit);
    let mut data = Vec::with_capacity(page.len());
    for persona in &page {
        data.push(described(&context, persona).await);
    }
    let last = page.last().map(|persona| persona.name.as_str());
    Ok(Json(json!({"object": "list", "data": data, "has_more": has_more, "last_id": last})))
}

/// `POST /v1/personas`: 201, or 409 where the name is taken. As a form with the parts `file` (a character card as JSON, PNG
/// or CHARX, or a Modelfile), `name` and `replace` it takes a file.
pub async fn create_persona(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    if media_type(request.headers()).as_deref() == Some("multipart/form-data") {
        return import_file(&context, request).await;
    }
    let (_, map) = read_map(request, limits::PERSONA_BODY_BYTES_MAX).await?;
    let mut fields = Fields::new(map);
    let name = fields.string("name")?.ok_or_else(|| missing("name"))?;
    let (spec, notes) = read_spec(fields, &context, &name)?;
    let persona = create(&context, name, spec).await?;
    Ok(answer(StatusCode::CREATED, &context, &persona, notes).await)
}

async fn create(context: &Context, name: String, spec: PersonaSpec) -> Result<Arc<Persona>, ApiError> {
    context.personas.check_new(&name)?;
    let digest = digest_checked(context, &spec).await?;
    let personas = context.personas.clone();
    blocking(move || personas.create(&name, spec, digest)).await
}

async fn import_file(context: &Context, request: Request) -> Result<Response<Body>, ApiError> {
    let turn = turn(context).await?;
    let mut parts = Parts::read(request, &["file", "name", "replace"]).await?;
    let file = parts.required("file")?;
    let replace = parts.flag("replace")?;
    let given = parts.take("name").map(|name| String::from_utf8_lossy(&name).trim().to_owned());
    let work = move || {
        let _turn = turn;
        import(&file).map_err(|error| PersonaError::Card { param: "file", error })
    };
    let imported = blocking(work).await?;
    let name = given.filter(|name| !name.is_empty()).or(imported.name).ok_or_else(|| {
        let message = "the file names nobody whose name a persona may have; send one beside it";
        ApiError::at(ErrorCode::MissingField, "name", message)
    })?;
    let (spec, of_card) = read_spec(Fields::new(imported.fields), context, &name)?;
    let mut notes = imported.notes;
    notes.extend(of_card.into_iter().filter(|note| !notes.contains(note)).collect::<Vec<_>>());
    let (status, persona) = match replace {
        true => put(context, name, spec, Expected::Anything).await?,
        false => (StatusCode::CREATED, create(context, name, spec).await?),
    };
    Ok(answer(status, context, &persona, notes).await)
}

/// `GET /v1/personas/{name}/card?format=card-v3|card-v2|given`: the persona as a character card, or its card as it was given.
pub async fn show_card(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
    Query(query): Query<QueryMap>,
) -> Result<Json<Value>, ApiError> {
    check_query(&query, &["format"])?;
    let persona = context.personas.find(&name, "name")?;
    let format = match query.get("format").map(String::as_str) {
        None | Some("card-v3") => CardFormat::V3,
        Some("card-v2") => CardFormat::V2,
        Some("given") => {
            let none = || {
                let message = format!("persona `{}` has no card", shown(&name));
                ApiError::at(ErrorCode::InvalidValue, "format", message)
            };
            return Ok(Json(Value::Object(persona.spec.card.as_ref().ok_or_else(none)?.map())));
        }
        Some(other) => {
            let known = listed(&["card-v3", "card-v2", "given"]);
            let message = format!("`{}` is no format; there are {known}", shown(other));
            return Err(ApiError::at(ErrorCode::InvalidValue, "format", message));
        }
    };
    Ok(Json(card_of(&persona, format)))
}

/// `GET /v1/personas/{name}?version=N`: the newest version unless another is asked for.
pub async fn show_persona(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
    Query(query): Query<QueryMap>,
) -> Result<Response<Body>, ApiError> {
    check_query(&query, &["version"])?;
    let personas = context.personas.clone();
    let persona = match whole(&query, "version", 1..=i64::from(u32::MAX))? {
        None => personas.find(&name, "name")?,
        Some(version) => blocking(move || personas.version(&name, version as u32)).await?,
    };
    Ok(answer(StatusCode::OK, &context, &persona, Vec::new()).await)
}

/// `PUT /v1/personas/{name}`: a new version, 200; the first one, 201. Fields left out are at their defaults.
pub async fn put_persona(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let (headers, map) = read_map(request, limits::PERSONA_BODY_BYTES_MAX).await?;
    let expected = if_match(&headers)?;
    let mut fields = Fields::new(map);
    if let Some(other) = fields.string("name")?.filter(|other| *other != name) {
        let message = format!("`{}` is not the name in the path; leave the field out", shown(other));
        return Err(ApiError::at(ErrorCode::InvalidValue, "name", message));
    }
    let (spec, notes) = read_spec(fields, &context, &name)?;
    let (status, persona) = put(&context, name, spec, expected).await?;
    Ok(answer(status, &context, &persona, notes).await)
}

async fn put(
    context: &Context,
    name: String,
    spec: PersonaSpec,
    expected: Expected,
) -> Result<(StatusCode, Arc<Persona>), ApiError> {
    context.personas.check(&name, &expected)?;
    let digest = digest_checked(context, &spec).await?;
    let personas = context.personas.clone();
    let (persona, is_first) = blocking(move || personas.put(&name, spec, &expected, digest)).await?;
    Ok((if is_first { StatusCode::CREATED } else { StatusCode::OK }, persona))
}

/// `DELETE /v1/personas/{name}`: all its versions. Requests that run go on.
pub async fn delete_persona(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let expected = if_match(&headers)?;
    let (personas, removed) = (context.personas.clone(), name.clone());
    let versions = blocking(move || personas.delete(&name, &expected)).await?;
    Ok(Json(json!({"object": "persona.deleted", "name": removed, "deleted": true, "versions": versions})))
}

/// The body without its name, and what a person should know of its card. Names in it are looked up later.
fn read_spec(
    mut fields: Fields,
    context: &Context,
    name: &str,
) -> Result<(PersonaSpec, Vec<String>), ApiError> {
    let (card, notes) = read_card(&mut fields, context, name)?;
    let steering = match fields.take("steering") {
        None => SteeringRequest::default(),
        // Inline directions have no name to be found again by: they are stored as vectors first.
        Some(value) => SteeringRequest::from_json(&value, "steering", RequestRules { inline: false })?,
    };
    let name_or_null = |fields: &mut Fields, name: &str| match fields.take(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(Value::String(_)) => Err(fields.refuse(name, "the name is empty; send null for none")),
        Some(other) => Err(wrong_kind(name, &other, "a name or null")),
    };
    let spec = PersonaSpec {
        // The card's own, unless another is given.
        system: fields
            .string("system")?
            .or(card.as_ref().map(|card| card.system.clone()))
            .unwrap_or_default(),
        steering,
        soft_prompt: name_or_null(&mut fields, "soft_prompt")?,
        user: name_or_null(&mut fields, "user")?,
        sampling: fields.take("sampling").map(read_defaults).transpose()?.unwrap_or_default(),
        description: fields.string("description")?.unwrap_or_default(),
        card,
    };
    fields.finish(&FIELDS)?;
    spec.check()?;
    if let Some(id) = &spec.user {
        UserId::parse(id, "user")?;
    }
    Ok((spec, notes))
}

/// A whole card, or the digest of the one that the persona has now, which stays.
fn read_card(
    fields: &mut Fields,
    context: &Context,
    name: &str,
) -> Result<(Option<Arc<Card>>, Vec<String>), ApiError> {
    match fields.take("card") {
        None => Ok((None, Vec::new())),
        Some(Value::Object(map)) => {
            let card = Card::from_map(map).map_err(|error| PersonaError::Card { param: "card", error })?;
            Ok((Some(Arc::new(card.0)), card.1))
        }
        Some(Value::String(given)) => {
            let known = context.personas.find(name, "name").ok().and_then(|known| known.spec.card.clone());
            let card = known.filter(|card| card.digest().to_string() == given);
            let unknown = || PersonaError::UnknownCard { name: name.to_owned(), given: shown(&given) };
            Ok((Some(card.ok_or_else(unknown)?), Vec::new()))
        }
        Some(other) => {
            Err(wrong_kind("card", &other, "a character card, the digest of the one it has, or null"))
        }
    }
}

/// `If-Match`: absent, `*`, or versions in quotes.
fn if_match(headers: &HeaderMap) -> Result<Expected, ApiError> {
    let mut versions = Vec::new();
    let mut is_given = false;
    for value in headers.get_all(header::IF_MATCH) {
        is_given = true;
        let text = value.to_str().unwrap_or_default();
        if text.trim() == "*" {
            return Ok(Expected::Some);
        }
        for tag in text.split(',').map(str::trim) {
            let inside = tag.strip_prefix("W/").unwrap_or(tag);
            let inside = inside.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let Some(inside) = inside else {
                let message =
                    format!("`{}` is no entity tag; send `\"1\"` for version 1, or `*`", shown(tag));
                return Err(ApiError::at(ErrorCode::InvalidValue, "if-match", message));
            };
            // A tag of somebody else's making matches nothing, and a weak one never does.
            versions.extend(inside.parse::<u32>().ok().filter(|_| !tag.starts_with("W/")));
        }
    }
    Ok(if is_given { Expected::Versions(versions) } else { Expected::Anything })
}

/// One persona; with its greetings, which lists leave out.
async fn answer(
    status: StatusCode,
    context: &Context,
    persona: &Persona,
    notes: Vec<String>,
) -> Response<Body> {
    let mut object = described(context, persona).await;
    if let Some(card) = &persona.spec.card {
        object["greetings"] = json!(card.greetings);
    }
    if !notes.is_empty() {
        object["notes"] = json!(notes);
    }
    let mut response = (status, Json(object)).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", persona.version)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// A persona as it is answered. `digest` is null where it cannot be told at the moment, and `digest_note` says why.
async fn described(context: &Context, persona: &Persona) -> Value {
    let (digest, note) = match digest_now(context, &persona.spec).await {
        Ok(digest) => (Some(digest), None),
        Err(error) => (None, Some(error.message)),
    };
    let standing = digest.map(|digest| context.gate.standing(&digest));
    let mut probe = json!({"status": standing.as_ref().map_or(Probed::Unprobed, |found| found.state).name()});
    if let Some(reasons) = standing.map(|found| found.reasons).filter(|reasons| !reasons.is_empty()) {
        probe["reasons"] = json!(reasons);
    }
    let mut object = json!({
        "object": "persona",
        "name": persona.name,
        "version": persona.version,
        "model": format!("{}@{}", context.model, persona.name),
        "created": persona.created,
        "digest": digest.map(|digest| digest.to_string()),
        "probe": probe,
    });
    if note.is_some() {
        object["digest_note"] = json!(note);
    }
    if let Value::Object(object) = &mut object {
        object.extend(persona.spec.fields());
    }
    // The card itself has a route of its own: it may be large.
    let card = persona.spec.card.as_deref();
    object["card"] = json!(card.map(|card| card.digest().to_string()));
    if let Some(card) = card {
        object["character"] = json!({"name": card.character, "lorebook_entries": card.entries()});
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, HeaderValue::from_str(text).expect("a header value"));
            if_match(&headers).map_err(|error| error.code)
        };
        assert_eq!(if_match(&HeaderMap::new()), Ok(Expected::Anything));
        let table = [
            ("*", Ok(Expected::Some)),
            ("\"1\"", Ok(Expected::Versions(vec![1]))),
            ("\"1\", \"12\"", Ok(Expected::Versions(vec![1, 12]))),
            ("W/\"1\"", Ok(Expected::Versions(vec![]))),
            ("\"abc\"", Ok(Expected::Versions(vec![]))),
            ("1", Err(ErrorCode::InvalidValue)),
            ("\"1", Err(ErrorCode::InvalidValue)),
            ("", Err(ErrorCode::InvalidValue)),
        ];
        for (text, expected) in table {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
