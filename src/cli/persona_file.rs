//! A persona as a file: what an export holds, and how it comes back.

use super::client::Client;
use super::persona::{path, print, spec_of};
use super::{CliError, Outcome};
use crate::shipped;
use crate::steering::{RequestRules, Source, SteeringRequest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What an export says it is.
const SCHEMA: &str = "demeanor.persona/1";

/// Writes a persona, with the stored vectors of its plan if asked for.
pub fn export(client: &Client, name: &str, out: Option<&Path>, with_vectors: bool) -> Outcome {
    let persona = client.json("GET", &path(name), None, &[])?;
    let mut file = json!({
        "schema": SCHEMA, "name": name, "version": persona["version"], "digest": persona["digest"],
        "model": persona["model"],
    });
    for (field, value) in spec_of(&persona) {
        file[field] = value;
    }
    if with_vectors {
        file["vectors"] = Value::Object(vectors(client, &persona["steering"])?);
    }
    let text = format!("{file:#}\n");
    match out {
        None => print!("{text}"),
        Some(out) => super::write(out, text)?,
    }
    Ok(())
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
    let text = std::fs::read_to_string(file)
        .map_err(|error| CliError::bad_file(format!("{shown}: cannot be read: {error}")))?;
    import_text(client, &text, &shown, name, replace, as_json)
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
    for (vector, file) in vectors.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let bytes = file.as_str().and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.ok_or_else(|| bad(format!("the vector `{vector}` is no base64 text")))?;
        upload(client, vector, bytes, replace)?;
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
