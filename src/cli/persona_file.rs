//! A persona as a file: what an export holds, how it comes back, and how cards of other programs come in.

use super::client::Client;
use super::persona::{path, print, spec_of};
use super::{CliError, Outcome};
use crate::limits;
use crate::persona::card::{self, EXTENSION, picture_with_card};
use crate::shipped;
use crate::steering::{RequestRules, Source, SteeringRequest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What an export says it is.
const SCHEMA: &str = "demeanor.persona/1";

/// How a persona is written.
pub struct Form<'a> {
    /// `json`, `card-v2` or `card-v3`.
    pub format: &'a str,
    /// A PNG picture to put the card into.
    pub image: Option<&'a Path>,
    /// With the stored vectors of its plan.
    pub with_vectors: bool,
}

/// Writes a persona.
pub fn export(client: &Client, name: &str, form: &Form<'_>, out: Option<&Path>) -> Outcome {
    let persona = client.json("GET", &path(name), None, &[])?;
    let own = match form.with_vectors {
        true => vectors(client, &persona["steering"])?,
        false => Map::new(),
    };
    let content = match (form.format, form.image) {
        ("json", None) => readable(&as_json(client, name, &persona, own)?),
        ("json", Some(_)) => {
            let message = "--image needs --format card-v2 or card-v3".to_owned();
            return Err(CliError { code: 2, message });
        }
        (format, None) => readable(&card(client, name, format, &own)?),
        (format, Some(image)) => picture(client, name, format, &own, image)?,
    };
    match out {
        None => print!("{}", String::from_utf8_lossy(&content)),
        Some(out) => super::write(out, content)?,
    }
    Ok(())
}

fn readable(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// The persona as a card of `format`, vectors in our extension.
fn card(client: &Client, name: &str, format: &str, own: &Map<String, Value>) -> Result<Value, CliError> {
    let mut card = client.json("GET", &format!("{}/card?format={format}", path(name)), None, &[])?;
    if !own.is_empty() {
        card["data"]["extensions"][EXTENSION]["vectors"] = Value::Object(own.clone());
    }
    Ok(card)
}

/// The picture with the card in it; a card of V3 has one of V2 beside it, for programs that know no other.
fn picture(
    client: &Client,
    name: &str,
    format: &str,
    own: &Map<String, Value>,
    image: &Path,
) -> Result<Vec<u8>, CliError> {
    let shown = image.display();
    let bytes = bounded(image)?;
    let text = |format: &str| card(client, name, format, own).map(|card| card.to_string());
    let v2 = text("card-v2")?;
    let v3 = if format == "card-v3" { Some(text(format)?) } else { None };
    let mut cards = vec![("chara", v2.as_str())];
    cards.extend(v3.as_deref().map(|card| ("ccv3", card)));
    picture_with_card(&bytes, &cards).map_err(|error| CliError::bad_file(format!("`{shown}`: {error}")))
}

/// The form that holds all of it.
fn as_json(client: &Client, name: &str, persona: &Value, own: Map<String, Value>) -> Result<Value, CliError> {
    let mut file = json!({
        "schema": SCHEMA, "name": name, "version": persona["version"], "digest": persona["digest"],
        "model": persona["model"],
    });
    for (field, value) in spec_of(&persona) {
        file[field] = value;
    }
    if persona["card"].is_string() {
        let mut card = client.json("GET", &format!("{}/card?format=given", path(name)), None, &[])?;
        file["card"] = card.take();
    }
    if !own.is_empty() {
        file["vectors"] = Value::Object(own);
    }
    Ok(file)
}

/// The stored vectors of a plan by name, as safetensors in base64. Poles of traits are left out.
fn vectors(client: &Client, steering: &Value) -> Result<Map<String, Value>, CliError> {
    let plan = SteeringRequest::from_json(steering, "steering", RequestRules::default())
        .map_err(|error| CliError::failed(error.to_string()))?;
    let traits = client.json("GET", "/v1/traits", None, &[])?;
    let poles: Vec<&str> = traits["data"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|one| [one["name"].as_str(), one["opposite"].as_str()])
        .flatten()
        .collect();
    let is_trait = |name: &str| {
        poles.contains(&name)
            || poles.iter().any(|pole| {
                name.strip_prefix(pole)
                    .is_some_and(|rest| rest.strip_prefix('.').is_some_and(|rest| poles.contains(&rest)))
            })
    };
    let mut found = Map::new();
    for intervention in &plan.interventions {
        if let Source::Name(name) = &intervention.source
            && !is_trait(name)
            && !found.contains_key(name)
        {
            let file =
                client.call("GET", &format!("/v1/vectors/{name}/file?format=safetensors"), None, &[])?;
            found.insert(name.clone(), json!(STANDARD.encode(file)));
        }
    }
    Ok(found)
}

/// The personas that come with the program: name and description, by name.
pub fn list_shipped(as_json: bool) -> Outcome {
    let read = shipped::folder("personas").map(|(name, text)| {
        let file: Value = serde_json::from_str(text)
            .map_err(|error| CliError::failed(format!("the shipped persona `{name}`: {error}")))?;
        Ok(json!({
            "name": name, "description": file["description"], "steering": file["steering"],
            "system": file["system"],
        }))
    });
    let all = read.collect::<Result<Vec<Value>, CliError>>()?;
    if as_json {
        println!("{}", Value::from(all));
        return Ok(());
    }
    for one in &all {
        let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
        println!("{:<20} {:<26} {}", text("name"), text("steering"), text("description"));
    }
    println!("hint: demeanor persona import --shipped NAME stores one, --shipped-all all of them");
    Ok(())
}

/// Stores one of the personas that come with the program.
pub fn import_shipped(
    client: &Client,
    shipped: &str,
    name: Option<&str>,
    replace: bool,
    as_json: bool,
) -> Outcome {
    let known = || shipped::folder("personas").map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    let text = shipped::file(&format!("personas/{shipped}.json")).ok_or_else(|| {
        CliError::failed(format!("no persona `{shipped}` is shipped; there are {}", known()))
    })?;
    import_text(client, text, &format!("the shipped persona `{shipped}`"), name, replace, as_json)
}

/// Stores all of them. One that is there already stays, unless it is to be replaced.
pub fn import_all(client: &Client, replace: bool, as_json: bool) -> Outcome {
    for (name, _) in shipped::folder("personas") {
        let is_there = client.json("GET", &path(name), None, &[]).is_ok();
        if is_there && !replace {
            eprintln!("note: there is a persona `{name}` already, it stays; hint: --replace");
            continue;
        }
        import_shipped(client, name, None, replace, as_json)?;
    }
    Ok(())
}

/// Stores the persona of a file, its vectors first.
pub fn import(client: &Client, file: &Path, name: Option<&str>, replace: bool, as_json: bool) -> Outcome {
    let shown = format!("`{}`", file.display());
    let bytes = bounded(file)?;
    if let Ok(text) = std::str::from_utf8(&bytes)
        && is_persona(text)
    {
        return import_text(client, text, &shown, name, replace, as_json);
    }
    // Read here too: a bad file is told from a refusal of the server's.
    let imported = card::import(&bytes).map_err(|error| CliError::bad_file(format!("{shown}: {error}")))?;
    let name = name.map(str::to_owned).or(imported.name);
    let name = name.ok_or_else(|| {
        CliError::bad_file(format!("{shown}: names nobody whose name a persona may have; hint: --name"))
    })?;
    upload_all(client, &imported.vectors, &shown, replace)?;
    let replace: &[u8] = if replace { b"true" } else { b"false" };
    let parts = [("name", name.as_bytes()), ("replace", replace), ("file", &bytes[..])];
    let persona = client.upload("/v1/personas", &parts)?;
    if !as_json {
        println!("{}", summary(&persona, imported.kind));
    }
    print(&persona, as_json);
    Ok(())
}

/// A file of a size that this room takes.
fn bounded(file: &Path) -> Result<Vec<u8>, CliError> {
    let shown = file.display();
    let unreadable = |error| CliError::bad_file(format!("`{shown}`: cannot be read: {error}"));
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    let max = limits::CARD_FILE_BYTES_MAX;
    if size > max as u64 {
        return Err(CliError::bad_file(format!("`{shown}`: {size} bytes are too long; at most {max}")));
    }
    std::fs::read(file).map_err(unreadable)
}

/// Whether a text is a persona in our own form: what an export writes, or the body of `POST /v1/personas`.
fn is_persona(text: &str) -> bool {
    let Ok(Value::Object(map)) = serde_json::from_str::<Value>(text) else { return false };
    map.contains_key("schema") || !card::is_card(&map)
}

/// What came of a card, in one line.
fn summary(persona: &Value, kind: &str) -> String {
    let name = persona["name"].as_str().unwrap_or("?");
    let system = persona["system"].as_str().unwrap_or_default().len();
    let mut parts = vec![format!("system text of {system} bytes")];
    if let Some(greetings) = persona["greetings"].as_array() {
        parts.push(format!("{} greetings (kept, the server says none by itself)", greetings.len()));
        parts.push(format!("lorebook of {} entries", persona["character"]["lorebook_entries"]));
    }
    let steering = if persona["steering"].as_array().is_some_and(Vec::is_empty) || persona["steering"] == "" {
        "no steering".to_owned()
    } else {
        format!("steering {}", persona["steering"])
    };
    parts.push(steering);
    format!("{name}: {kind}: {}", parts.join(", "))
}

fn import_text(
    client: &Client,
    text: &str,
    from: &str,
    name: Option<&str>,
    replace: bool,
    as_json: bool,
) -> Outcome {
    let bad = |what: String| CliError::bad_file(format!("{from}: {what}"));
    let Ok(Value::Object(mut read)) = serde_json::from_str::<Value>(text) else {
        return Err(bad("is no JSON object; hint: `demeanor persona export` writes one".to_owned()));
    };
    match read.shift_remove("schema") {
        None => {}
        Some(schema) if schema == SCHEMA => {}
        Some(other) => return Err(bad(format!("the schema is {other}, this build reads `{SCHEMA}`"))),
    }
    let digest = read.shift_remove("digest");
    let vectors = read.shift_remove("vectors");
    for field in ["version", "model"] {
        read.shift_remove(field);
    }
    let own = read.shift_remove("name");
    let name = name.or_else(|| own.as_ref().and_then(Value::as_str));
    let name = name.ok_or_else(|| bad("has no `name`; hint: --name".to_owned()))?.to_owned();
    if let Some(vectors) = vectors.as_ref().and_then(Value::as_object) {
        upload_all(client, vectors, from, replace)?;
    }
    let imported = if replace {
        client.json("PUT", &path(&name), Some(&Value::Object(read)), &[])?
    } else {
        read.insert("name".to_owned(), json!(name));
        client.json("POST", "/v1/personas", Some(&Value::Object(read)), &[])?
    };
    if digest.is_some_and(|digest| digest.is_string() && digest != imported["digest"]) {
        eprintln!("note: its digest differs from the exported one: other weights, vectors or soft prompt");
    }
    print(&imported, as_json);
    Ok(())
}

/// Stores the vectors of a file.
fn upload_all(client: &Client, vectors: &Map<String, Value>, from: &str, replace: bool) -> Outcome {
    for (vector, file) in vectors {
        let bytes = file.as_str().and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes
            .ok_or_else(|| CliError::bad_file(format!("{from}: the vector `{vector}` is no base64 text")))?;
        upload(client, vector, bytes, replace)?;
    }
    Ok(())
}

/// Stores a vector of the file. One that is there already stays, unless it is to be replaced.
fn upload(client: &Client, name: &str, file: Vec<u8>, replace: bool) -> Outcome {
    if !replace && client.json("GET", &format!("/v1/vectors/{name}"), None, &[]).is_ok() {
        eprintln!("note: there is a vector `{name}` already, it stays; hint: --replace");
        return Ok(());
    }
    let replace: &[u8] = if replace { b"true" } else { b"false" };
    let parts = [("name", name.as_bytes()), ("replace", replace), ("file", &file[..])];
    client.upload("/v1/vectors", &parts).map(drop)
}
