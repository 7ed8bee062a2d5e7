//! `/openapi.json` and `/docs`: the route table with what each route takes and gives, as OpenAPI 3.1 and as a page.
//!
//! The tables are our own and not derived from structs: requests are read field by field (aliases, values that mean
//! *off*, errors that name the place), so there is no struct that says what a route takes.

mod components;
mod fields;
mod operations;
mod schema;

use super::{BUILD, Context, ROUTES};
use crate::report::{Page, Table};
use axum::Json;
use axum::extract::State;
use axum::response::Html;
use components::{COMPONENTS, Component};
use fields::Field;
use operations::{Body, Content, Operation, operations};
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

/// `GET /openapi.json`.
pub async fn openapi(State(_): State<Arc<Context>>) -> Json<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
    Json(&DOCUMENT)
}

/// `GET /docs`: one page that loads nothing.
pub async fn docs(State(_): State<Arc<Context>>) -> Html<&'static str> {
    static PAGE: LazyLock<String> = LazyLock::new(page);
    Html(PAGE.as_str())
}

/// The whole description. Routes stand under the path with `/v1`, where they have one; each also answers without.
fn document() -> Value {
    let mut paths = Map::new();
    for &(path, route) in ROUTES {
        let mut entry = Map::new();
        let parameters = path_parameters(path);
        if !parameters.is_empty() {
            entry.insert("parameters".into(), parameters.into());
        }
        for operation in operations(route) {
            entry.insert(operation.method.into(), described(path, operation));
        }
        paths.insert(path.replace("{*", "{"), entry.into());
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "demeanor",
            "version": BUILD,
            "description": "A local inference server that gives every request its own personality. Routes under \
                /v1 also answer without it. Optional fields may be null, which is the same as leaving them out.",
        },
        "paths": paths,
        "components": {
            "schemas": component_schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        // Where the operator gave no key, anybody may call.
        "security": [{}, {"bearer": []}, {"key": []}],
    })
}

fn component_schemas() -> Map<String, Value> {
    let one = |component: &Component| match component {
        Component::Text(pattern) => json!({"type": "string", "pattern": pattern}),
        Component::Kind(kind) => schema::schema(kind),
        Component::Off => json!({"enum": ["", false, [], {}]}),
        Component::Given(fields) => object(fields.iter(), true),
        Component::Closed(fields) => closed(object(fields.iter(), true)),
        Component::Told(fields) => object(fields.iter(), false),
    };
    let mut all: Map<String, Value> =
        COMPONENTS.iter().map(|(name, component)| (name.to_string(), one(component))).collect();
    all.insert("Error".into(), error_schema());
    all
}

/// The schema of an object that has no other fields.
fn closed(mut schema: Value) -> Value {
    schema["additionalProperties"] = false.into();
    schema
}

fn error_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": text,
                "type": text,
                "param": schema::schema("string|null"),
                // While the model loads, llama.cpp's number 503.
                "code": schema::schema("string|integer"),
            },
        }},
    })
}

/// The variable parts of a path.
fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let name = name.trim_start_matches('*');
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
    };
    names.map(parameter).collect()
}

fn described(path: &str, operation: &Operation) -> Value {
    let mut entry = json!({
        "summary": operation.about,
        "operationId": operation_id(path, operation.method),
        "responses": answers(operation),
    });
    if !operation.query.is_empty() {
        let parameter = |field: &Field| {
            let schema = schema::schema(field.kind);
            json!({"name": field.name, "in": "query", "description": field.about, "schema": schema})
        };
        entry["parameters"] = operation.query.iter().map(parameter).collect();
    }
    if let Some(mut content) = body_content(operation.body) {
        let taken = &mut content["application/json"];
        if !operation.one_of.is_empty() {
            let needed = operation.one_of.iter().map(|name| json!({"required": [name]}));
            taken["schema"]["anyOf"] = needed.collect();
        }
        if let Ok(example) = serde_json::from_str::<Value>(operation.example) {
            taken["example"] = example;
        }
        entry["requestBody"] = json!({"required": true, "content": content});
    }
    entry
}

/// `post_v1_personas_name`.
fn operation_id(path: &str, method: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    [method].into_iter().chain(words).collect::<Vec<_>>().join("_")
}

fn body_content(body: Body) -> Option<Value> {
    let of = |groups: &[&[Field]]| object(groups.iter().copied().flatten(), true);
    match body {
        Body::None => None,
        Body::Open(groups) => Some(json!({"application/json": {"schema": of(groups)}})),
        Body::Closed(groups) => Some(json!({"application/json": {"schema": closed(of(groups))}})),
        Body::Lines(groups) => Some(json!({
            "application/json": {"schema": closed(of(groups))},
            "application/x-ndjson": {"schema": {"type": "string"}},
        })),
        Body::Upload(groups, parts) => {
            let mut form = closed(object(parts.iter(), false));
            form["properties"]["file"]["contentMediaType"] = "application/octet-stream".into();
            Some(json!({
                "application/json": {"schema": closed(of(groups))},
                "multipart/form-data": {"schema": form},
            }))
        }
    }
}

fn answers(operation: &Operation) -> Value {
    let mut all = Map::new();
    for (status, content) in operation.answers {
        all.insert(status.to_string(), json!({"description": "Done", "content": content_of(*content)}));
    }
    let error = json!({"schema": {"$ref": "#/components/schemas/Error"}});
    all.insert(
        "default".into(),
        json!({"description": "Refused or failed", "content": {"application/json": error}}),
    );
    all.into()
}

fn content_of(content: Content) -> Value {
    let text = json!({"schema": {"type": "string"}});
    let object = |fields: &[Field]| json!({"schema": object(fields.iter(), false)});
    match content {
        // Several prompts of one request are answered by an array in one dialect.
        Content::ObjectOrEvents([]) => json!({"application/json": {"schema": {}}, "text/event-stream": {}}),
        Content::Object(fields) => json!({"application/json": object(fields)}),
        Content::Is(name) => json!({"application/json": {"schema": schema::schema(name)}}),
        Content::ObjectOrEvents(fields) => {
            json!({"application/json": object(fields), "text/event-stream": {}})
        }
        Content::Events => json!({"text/event-stream": {}}),
        Content::Text => json!({"text/plain": text}),
        Content::Page => json!({"text/html": text}),
        Content::File => {
            json!({"application/octet-stream": {}, "application/json": {}, "application/zip": {}})
        }
    }
}

/// The schema of an object. In bodies, `null` stands for an optional field that is left out, and mostly an empty text.
fn object<'a>(fields: impl Iterator<Item = &'a Field>, is_body: bool) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in fields {
        let mut schema = match is_body && !field.required {
            true => {
                let mut schema = schema::schema(&format!("{}|null", field.kind));
                if let Some(either) = schema["anyOf"].as_array_mut() {
                    either.push(json!({"const": ""}));
                }
                schema
            }
            false => schema::schema(field.kind),
        };
        if !field.about.is_empty() {
            schema["description"] = json!(field.about);
        }
        properties.insert(field.name.into(), schema);
        required.extend(field.required.then_some(field.name));
    }
    json!({"type": "object", "properties": properties, "required": required})
}

fn page() -> String {
    let mut page = Page::new(&format!("demeanor {BUILD}: routes"));
    page.paragraph(
        "Every route under /v1 also answers without it. Bodies are JSON. An error is always \
         {\"error\": {\"message\", \"type\", \"param\", \"code\"}}. The same as OpenAPI 3.1: /openapi.json",
    );
    for &(path, route) in ROUTES {
        for operation in operations(route) {
            page.heading(&format!("{} {}", operation.method.to_uppercase(), path.replace("{*", "{")));
            page.paragraph(operation.about);
            let (fields, note) = match operation.body {
                Body::None => (Vec::new(), ""),
                Body::Open(groups) => (groups.concat(), "Fields that are not listed are ignored."),
                Body::Closed(groups) => (groups.concat(), "Fields that are not listed are refused."),
                Body::Lines(groups) => (
                    groups.concat(),
                    "Fields that are not listed are refused. Or JSON Lines, an item a line.",
                ),
                Body::Upload(groups, _) => {
                    (groups.concat(), "Or a multipart/form-data body with these parts:")
                }
            };
            if !operation.query.is_empty() {
                page.words("Parameters", &table(operation.query));
            }
            if !fields.is_empty() {
                page.words("Fields", &table(&fields)).paragraph(note);
            }
            if let Body::Upload(_, parts) = operation.body {
                page.words("Parts", &table(parts));
            }
            if !operation.example.is_empty() {
                page.paragraph(&format!("For example: {}", operation.example));
            }
        }
    }
    page.heading("Types");
    for (name, component) in COMPONENTS {
        match component {
            Component::Text(pattern) => page.paragraph(&format!("{name}: a text of the pattern {pattern}")),
            Component::Kind(kind) => page.paragraph(&format!("{name}: {kind}")),
            Component::Off => page.paragraph(&format!("{name}: an empty text, list or object, or false")),
            Component::Given(fields) | Component::Closed(fields) | Component::Told(fields) => {
                page.words(name, &table(fields))
            }
        };
    }
    page.html()
}

fn table(fields: &[Field]) -> Table {
    let head = ["field", "type", "needed", "meaning"].map(str::to_owned).to_vec();
    let row = |field: &Field| {
        let needed = if field.required { "yes" } else { "" };
        [field.name, field.kind, needed, field.about].map(str::to_owned).to_vec()
    };
    Table { head, rows: fields.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn all() -> impl Iterator<Item = (&'static str, &'static Operation)> {
        ROUTES.iter().flat_map(|&(path, route)| operations(route).iter().map(move |one| (path, one)))
    }

    #[test]
    fn every_type_is_a_notation_and_no_field_stands_twice() {
        for (path, operation) in all() {
            let groups = match operation.body {
                Body::None => &[][..],
                Body::Open(groups) | Body::Closed(groups) | Body::Upload(groups, _) | Body::Lines(groups) => {
                    groups
                }
            };
            let mut seen = BTreeSet::new();
            for field in groups.iter().copied().flatten() {
                assert!(schema::is_notation(field.kind), "{path} {}", field.name);
                assert!(seen.insert(field.name), "{path}: {} twice", field.name);
            }
            assert!(!operation.about.is_empty() && !operation.answers.is_empty(), "{path}");
            assert!(operation.one_of.iter().all(|name| seen.contains(name)), "{path}");
            if let Ok(Value::Object(example)) = serde_json::from_str(operation.example) {
                assert!(example.keys().all(|name| seen.contains(name.as_str())), "{path}");
            } else {
                assert!(operation.example.is_empty(), "{path}");
            }
        }
    }

    #[test]
    fn names_of_operations_are_their_own() {
        let ids: Vec<String> = all().map(|(path, operation)| operation_id(path, operation.method)).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    }

    #[test]
    fn the_page_names_every_route_and_loads_nothing() {
        let page = page();
        for (path, operation) in all() {
            let heading = format!("<h2>{} {}</h2>", operation.method.to_uppercase(), path.replace("{*", "{"));
            assert!(page.contains(&heading), "{heading}");
        }
        assert!(!page.contains("src=") && !page.contains("<script") && !page.contains("href="));
    }
}
