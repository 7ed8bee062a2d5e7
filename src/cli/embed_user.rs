//! `demeanor embed user`: what is held of a person, and the soft prompt that is made of it.

use super::Outcome;
use super::client::segment;
use super::target::Place;
use serde_json::Value;

/// Show what is held of a user: items, how many are embedded, the soft prompt in force
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  demeanor embed user ana --server http://127.0.0.1:8080\n\n\
    Works on the data folder, with the model loaded for it; --server asks a running server instead.")]
pub struct UserArgs {
    /// The user's id
    pub id: String,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

pub fn user(args: &UserArgs) -> Outcome {
    let target = args.place.open(&format!("URL{}", path(&args.id)))?;
    let user = target.client.json("GET", &path(&args.id), None, &[])?;
    if args.json {
        println!("{user}");
    } else {
        print!("{}", described(&user));
    }
    Ok(())
}

fn path(id: &str) -> String {
    format!("/v1/users/{}", segment(id))
}

fn described(user: &Value) -> String {
    let number = |name: &str| user[name].as_u64().unwrap_or(0);
    let id = user["id"].as_str().unwrap_or_default();
    let mut text = format!(
        "{id}  {} items, {} embedded, version {}\n",
        number("items"),
        number("embedded"),
        number("version")
    );
    let prompt = &user["soft_prompt"];
    if let Some(label) = prompt["label"].as_str() {
        let rows = prompt["rows"].as_u64().unwrap_or(0);
        let effect = match prompt["effect"].as_bool() {
            Some(true) => "",
            _ => ", the one of nobody in particular: no user effect expected",
        };
        text.push_str(&format!("soft prompt  {label}, {rows} rows{effect}\n"));
    }
    for warning in user["warnings"].as_array().into_iter().flatten() {
        text.push_str(&format!("warning  {}\n", warning.as_str().unwrap_or_default()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn a_user_in_words() {
        let prompt = json!({"label": "ana@2", "rows": 4, "effect": true});
        let user = json!({"id": "ana", "items": 3, "embedded": 3, "version": 2, "soft_prompt": prompt});
        expect![[r"
            ana  3 items, 3 embedded, version 2
            soft prompt  ana@2, 4 rows
        "]]
        .assert_eq(&described(&user));
        let user = json!({"id": "bob", "items": 2, "embedded": 0, "version": 1, "soft_prompt": null,
            "warnings": ["2 of 2 history items are not embedded yet"]});
        expect![[r"
            bob  2 items, 0 embedded, version 1
            warning  2 of 2 history items are not embedded yet
        "]]
        .assert_eq(&described(&user));
    }
}
