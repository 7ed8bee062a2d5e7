//! Cards end to end: what the fixtures become, what of them is in force, what is refused, what comes back on export.

use super::*;
use crate::persona::{Persona, PersonaParts, PersonaSoft, PersonaSpec, SamplingDefaults, persona_digest};
use crate::steering::{RequestRules, SteeringRequest};
use proptest::prelude::*;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;

fn fixture(name: &str) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/cards/");
    std::fs::read(format!("{path}{name}")).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn card(name: &str) -> (Card, Imported) {
    let imported = import(&fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let map = imported.fields["card"].as_object().expect("a card").clone();
    (Card::from_map(map).unwrap_or_else(|error| panic!("{name}: {error}")).0, imported)
}

/// A token for each four bytes.
fn tokens(text: &str) -> Result<usize, Infallible> {
    Ok(text.len().div_ceil(4))
}

/// First words of the entries in force after these texts; the even ones are the user's.
fn in_force(card: &Card, texts: &[&str]) -> Vec<String> {
    let said = Said { texts, answers: texts.len() as u32 / 2 };
    let Ok(found) = card.in_force(said, Which::Called, "Bo", &tokens);
    let words = |text: &String| text.split(' ').take(2).collect::<Vec<_>>().join(" ");
    found.constant.iter().chain(&found.called).map(words).collect()
}

#[test]
fn one_character_in_every_container() {
    let v2 = "{{original}}Write the next reply of {{char}} in this chat with {{user}}.\n\n\
        {{char}} keeps the lighthouse at Hollow Point. She is sixty and has never left the island.\n\n\
        {{char}}'s personality: dry, patient, kind to strangers\n\n\
        Scenario: {{user}} has been washed ashore at night.\n\n\
        Example dialogue:\n{{user}}: Who built this tower?\n{{char}}: My grandmother. Mind the third step.\n\n\
        <USER>: Are you alone?\n<BOT>: There is the lamp.";
    let v1 = v2.split_once("\n\n").expect("paragraphs").1;
    let table = [
        ("mira_v1.json", "card V1", "Mira Quill", v1, 1, 0),
        ("mira_v2.json", "card V2", "Mira Quill", v2, 3, 4),
        ("mira_v3.json", "card V3", "Mira", v2, 3, 6),
        ("mira_v2.png", "PNG picture", "Mira Quill", v2, 3, 4),
        ("mira_both.png", "PNG picture", "Mira", v2, 3, 6),
        ("mira_packed.png", "PNG picture", "Mira", v2, 3, 6),
        ("mira_v3.charx", "CHARX archive", "Mira", v2, 3, 6),
        ("newer.json", "card V2", "Mira Quill", v2, 3, 4),
    ];
    for (name, kind, character, system, greetings, entries) in table {
        let (card, imported) = card(name);
        assert_eq!((imported.kind, card.character.as_str()), (kind, character), "{name}");
        assert_eq!(card.system, system, "{name}");
        assert_eq!((card.greetings.len(), card.entries()), (greetings, entries), "{name}");
        let slug = character.to_lowercase().replace(' ', "-");
        assert_eq!(imported.name.as_deref(), Some(slug.as_str()), "{name}");
        assert!(!imported.fields.contains_key("system"), "{name}: made from the card");
    }
    let notes = |name: &str| card(name).1.notes.join("\n");
    assert!(notes("mira_v3.json").contains("`(unclosed`"), "{}", notes("mira_v3.json"));
    assert!(notes("newer.json").contains("2.7"), "{}", notes("newer.json"));
    assert_eq!(notes("mira_v1.json"), "");
    let (_, imported) = card("mira_v2.json");
    assert_eq!(imported.fields["description"], "A quiet character; works best with short answers.");
}

#[test]
fn a_modelfile_becomes_fields() {
    let imported = import(&fixture("Modelfile")).unwrap();
    let system = "You keep the lighthouse at Hollow Point.\nAnswer in one or two sentences.\n\n\
        Example dialogue:\nUser: Who built this tower?\nAssistant: My grandmother.\nMind the third step.";
    assert_eq!(imported.fields["system"], system);
    let sampling = json!({
        "temperature": 0.7, "top_k": 40, "repetition_penalty": 1.1, "stop": ["<|eot|>", "Keeper:"],
    });
    assert_eq!(imported.fields["sampling"], sampling);
    assert_eq!((imported.name, imported.fields.contains_key("card")), (None, false));
    let notes = imported.notes.join("\n");
    for named in ["`FROM llama3.2:3b`", "`TEMPLATE`", "`PARAMETER num_ctx`", "`LICENSE`"] {
        assert!(notes.contains(named), "{notes}");
    }
    assert!(!notes.contains("num_predict"), "{notes}");
}

/// A role may be letters of the keyword before it.
#[test]
fn a_word_before_quotes_is_found_in_its_place() {
    let message = import(b"FROM x\nmessage a \"\"\"b\"\"\"").unwrap_err().to_string();
    assert!(message.contains("line 2: `a` is no role"), "{message}");
    let imported = import("FROM x\n  MESSAGE  user \"\"\"Is the\nlamp lit?\"\"\"".as_bytes()).unwrap();
    assert_eq!(imported.fields["system"], "Example dialogue:\nUser: Is the\nlamp lit?");
}

#[test]
fn refusals_say_where() {
    let table = [
        ("bad_crc.png", "checksum of the chunk `tEXt`"),
        ("bad_length.png", "does not fit"),
        ("bad_base64.png", "`chara`: is not base64"),
        ("bad_bomb.png", "unpacked: 2097153 bytes are too long"),
        ("bad_bomb.charx", "unpacked: 2097153 bytes are too long"),
        ("bad_traversal.charx", "`../../outside.json` leads out"),
        ("bad_no_card.charx", "no `card.json`"),
        ("bad_deep.json", "levels of nesting"),
        ("bad_duplicate.json", "`name` occurs twice"),
        ("bad_spec.json", "`spec`: `chara_card_v9`"),
        ("bad_version.json", "`spec_version`: `latest`"),
        ("bad_surrogate.json", "in `name`"),
        ("bad_type.json", "`data.description`: must be a string, not an array"),
        ("bad_book.json", "`data.character_book.entries[0].keys`: must be an array"),
        ("bad_adapter.modelfile", "line 2: `ADAPTER ./lora.gguf`"),
    ];
    for (name, words) in table {
        let message = import(&fixture(name)).expect_err(name).to_string();
        assert!(message.contains(words), "{name}: {message}");
    }
    let long = json!({"name": "x", "first_mes": "", "description": "d".repeat(10 << 20)}).to_string();
    let listed = json!({"spec": "lorebook_v3", "data": {"entries": []}}).to_string();
    let nameless = json!({"name": " ", "first_mes": ""}).to_string();
    let keys = vec!["k"; limits::LORE_KEYS_MAX + 1];
    let book = json!({"entries": [{"keys": keys, "content": "c"}]});
    let keys = json!({"spec": "chara_card_v2", "data": {"name": "a", "character_book": book}}).to_string();
    let bytes: [(&[u8], &str); 11] = [
        (long.as_bytes(), "too long; at most 1048576"),
        (listed.as_bytes(), "without a character"),
        (nameless.as_bytes(), "`name`: must be the character's name"),
        (keys.as_bytes(), "too many; at most 8192"),
        (b"", "empty"),
        (b"[]", "must be an object, not an array"),
        (b"{}", "neither `spec`"),
        (b"\xff\xd8\xff\xe0JFIF", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "ends before"),
        (b"PK\x03\x04", "cannot be read"),
        (b"hello world", "no known kind"),
    ];
    for (bytes, words) in bytes {
        let message = import(bytes).expect_err(words).to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn entries_follow_what_was_said() {
    let (v2, _) = card("mira_v2.json");
    let table: [(&[&str], &[&str]); 9] = [
        (&["Hello"], &["The year"]),
        // Upper and lower case count where the entry says so; what an entry brings in counts too.
        (&["Is the LIGHT on?"], &["The year", "The lamp", "Ansel was"]),
        (&["ansel?"], &["The year"]),
        (&["Ansel?"], &["The year", "Ansel was"]),
        // A second key must occur beside; what other entries bring in is looked at by itself.
        (&["this island"], &["The year"]),
        (&["this island, north of it"], &["The year", "Ships do"]),
        (&["island, lamp"], &["The year", "The lamp", "Ansel was"]),
        // The last two messages are looked at.
        (&["lamp", "Yes.", "And?"], &["The year"]),
        (&["lamp", "Yes."], &["The year", "The lamp", "Ansel was"]),
    ];
    for (texts, expected) in table {
        assert_eq!(in_force(&v2, texts), expected, "{texts:?}");
    }
    let (v3, _) = card("mira_v3.json");
    let table: [(&[&str], bool, bool); 6] = [
        (&["A Storm comes"], true, false),
        // Patterns have no excluded keys, as the specification has it.
        (&["A storm after the calm"], true, false),
        (&["storm", "No."], false, false),
        (&["a", "b", "c", "d", "goodbye, ferry"], false, true),
        (&["a", "b", "goodbye, ferry"], false, false),
        (&["a", "b", "c", "d", "goodbye"], false, false),
    ];
    for (texts, storms, ferry) in table {
        let found = in_force(&v3, texts);
        let has = |words: &str| found.iter().any(|entry| entry == words);
        assert_eq!((has("Storms here"), has("The ferry")), (storms, ferry), "{texts:?}: {found:?}");
    }
}

fn book(budget: usize, entries: Value) -> Card {
    let data = json!({"name": "A", "character_book": {"token_budget": budget, "entries": entries}});
    let Value::Object(map) = json!({"spec": "chara_card_v2", "data": data}) else {
        unreachable!("an object")
    };
    Card::from_map(map).unwrap().0
}

#[test]
fn the_budget_leaves_out_the_lowest_priority() {
    let entry = |key: &str, priority: i32, order: i32| {
        json!({"keys": [key], "content": format!("{key}{}", "x".repeat(38)), "priority": priority,
            "insertion_order": order, "constant": key == "aa"})
    };
    // Ten tokens each.
    let entries = json!([entry("aa", 0, 9), entry("bb", 1, 3), entry("cc", 3, 2), entry("dd", 2, 1)]);
    let found = |budget: usize, texts: &[&str]| {
        let said = Said { texts, answers: 0 };
        let Ok(found) = book(budget, entries.clone()).in_force(said, Which::Called, "Bo", &tokens);
        let letters = found.constant.iter().chain(&found.called).map(|text| &text[..2]);
        (letters.collect::<Vec<_>>().join(" "), found.left_out, found.are_probed)
    };
    assert_eq!(found(40, &["bb cc dd"]), ("aa dd cc bb".into(), 0, true));
    assert_eq!(found(39, &["bb cc dd"]), ("aa dd cc".into(), 1, true));
    assert_eq!(found(29, &["bb cc dd"]), ("aa cc".into(), 2, true));
    assert_eq!(found(9, &["bb cc dd"]), ("".into(), 4, true));
    // The probe read the entries of the highest priority; another one is news to it.
    assert_eq!(found(39, &["bb"]), ("aa bb".into(), 0, false));
    let Ok(all) =
        book(39, entries.clone()).in_force(Said { texts: &[], answers: 0 }, Which::All, "Bo", &tokens);
    assert_eq!((all.constant.len(), all.called.len(), all.left_out), (1, 2, 1));
}

/// An entry that is short as written and long as read leaves the probe no room for those behind it.
#[test]
fn entries_behind_one_that_grows_are_unprobed() {
    let entries = json!([
        {"keys": ["rare"], "content": "{{char}}".repeat(8), "priority": 9},
        {"keys": ["hello"], "content": "Be rude.", "priority": 1},
    ]);
    let data = json!({"name": "A".repeat(100), "character_book": {"token_budget": 100, "entries": entries}});
    let Value::Object(map) = json!({"spec": "chara_card_v2", "data": data}) else {
        unreachable!("an object")
    };
    let (card, _) = Card::from_map(map).unwrap();
    let found = |texts: &[&str]| {
        let Ok(found) = card.in_force(Said { texts, answers: 0 }, Which::Called, "Bo", &tokens);
        (found.called.len(), found.are_probed)
    };
    assert_eq!(found(&["hello"]), (1, false));
    assert_eq!(found(&["nothing"]), (0, true));
}

#[test]
fn patterns_are_bounded() {
    let entries = |key: &str| json!([{"keys": [key], "content": "c", "use_regex": true}]);
    let matches = |key: &str, text: &str| !in_force(&book(0, entries(key)), &[text]).is_empty();
    assert!(matches("lam.s", "LAMPS"));
    assert!(matches("/lam.s/", "lamps") && !matches("/lam.s/", "LAMPS"));
    assert!(matches("/a.b/s", "a\nb") && !matches("/a.b/", "a\nb"));
    let deep = format!("{}x{}", "(".repeat(100), ")".repeat(100));
    for bad in ["(?=x)x", "(x", "\\w{1000}{1000}", deep.as_str()] {
        assert!(!matches(bad, "xxx"), "{bad}");
    }
    // Time is in proportion to the text, whatever the pattern.
    assert!(!matches("(a+)+$", &format!("{}b", "a".repeat(30_000))));
}

fn persona(name: &str, spec: PersonaSpec) -> Persona {
    Persona { name: name.to_owned(), version: 1, created: 0, spec }
}

/// What a server makes of an import.
fn stored(imported: &Imported) -> PersonaSpec {
    let fields = &imported.fields;
    let map = fields["card"].as_object().expect("a card").clone();
    let card = Card::from_map(map).expect("read before").0;
    let steering = fields.get("steering").cloned().unwrap_or(json!(""));
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let sampling = fields.get("sampling").cloned().unwrap_or(json!({}));
    PersonaSpec {
        system: text("system").unwrap_or_else(|| card.system.clone()),
        steering: SteeringRequest::from_json(&steering, "persona", RequestRules::default())
            .unwrap()
            .named("persona"),
        soft_prompt: text("soft_prompt"),
        user: None,
        sampling: serde_json::from_value(sampling).unwrap(),
        description: text("description").unwrap_or_default(),
        card: Some(Arc::new(card)),
    }
}

fn digest(spec: &PersonaSpec) -> Digest {
    persona_digest(&PersonaParts {
        weights: Digest::of(b"w"),
        template: Digest::of(b"t"),
        system: &spec.system,
        edits: Digest::of(spec.steering.canonical().to_string().as_bytes()),
        soft: PersonaSoft::None,
        sampling: &spec.sampling,
        card: spec.card.as_deref(),
    })
}

#[test]
fn exports_come_back_as_they_were() {
    let steering = SteeringRequest::from_json(&json!("0.6 warm"), "persona", RequestRules::default());
    let sampling = SamplingDefaults { temperature: Some(0.7), ..SamplingDefaults::default() };
    let own = PersonaSpec {
        steering: steering.unwrap().named("persona"),
        soft_prompt: Some("poet".into()),
        sampling,
        description: "mine".into(),
        ..PersonaSpec::default()
    };
    let mut specs = vec![("plain", PersonaSpec { system: "You are Ada.".into(), ..own.clone() })];
    for name in ["mira_v1.json", "mira_v2.json", "mira_v3.json"] {
        let as_made = stored(&card(name).1);
        specs.push((name, PersonaSpec { system: "Another text.".into(), ..as_made.clone() }));
        specs.push((name, PersonaSpec { system: as_made.system, card: as_made.card, ..own.clone() }));
    }
    for (name, spec) in specs {
        for format in [CardFormat::V2, CardFormat::V3] {
            let exported = card_of(&persona("keeper", spec.clone()), format);
            let back =
                import(exported.to_string().as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(back.name.as_deref(), Some("keeper"), "{name}");
            let again = stored(&back);
            assert_eq!(digest(&again), digest(&spec), "{name} {format:?}");
            let parts = |spec: &PersonaSpec| (spec.system.clone(), spec.fields());
            assert_eq!(parts(&again), parts(&spec), "{name} {format:?}");
            // A second export says the same.
            assert_eq!(card_of(&persona("keeper", again), format), exported, "{name} {format:?}");
        }
    }
}

#[test]
fn unknown_keys_survive() {
    let (_, imported) = card("mira_v3.json");
    let out = card_of(&persona("keeper", stored(&imported)), CardFormat::V3);
    let given: Value = serde_json::from_slice(&fixture("mira_v3.json")).unwrap();
    for (key, value) in given["data"].as_object().unwrap() {
        if key != "extensions" {
            assert_eq!(&out["data"][key], value, "{key}");
        }
    }
    for (key, value) in given["data"]["extensions"].as_object().unwrap() {
        assert_eq!(&out["data"]["extensions"][key], value, "{key}");
    }
    assert_eq!(out["data"]["extensions"][EXTENSION]["name"], "keeper");
    let (_, imported) = card("mira_v2.json");
    let out = card_of(&persona("keeper", stored(&imported)), CardFormat::V2);
    assert_eq!(out["outside"], "kept too");
    let (_, imported) = card("mira_v1.json");
    let out = card_of(&persona("keeper", stored(&imported)), CardFormat::V2);
    assert_eq!((&out["data"]["from_the_future"], &out["spec"]), (&json!(1), &json!("chara_card_v2")));
    assert_eq!(out["data"]["tags"], json!([]), "what a card must have is filled in");
}

#[test]
fn pictures_take_a_card() {
    let (_, imported) = card("mira_v3.json");
    let spec = stored(&imported);
    let text = |format| card_of(&persona("keeper", spec.clone()), format).to_string();
    let (v2, v3) = (text(CardFormat::V2), text(CardFormat::V3));
    let picture = picture_with_card(&fixture("mira_both.png"), &[("chara", &v2), ("ccv3", &v3)]).unwrap();
    let back = import(&picture).unwrap();
    assert_eq!((back.name.as_deref(), back.kind), (Some("keeper"), "PNG picture"));
    assert_eq!(digest(&stored(&back)), digest(&spec));
    // The cards that were in it are gone, pixels and animation are there.
    let count = |word: &[u8]| picture.windows(word.len()).filter(|part| *part == word).count();
    assert_eq!([count(b"chara\0"), count(b"ccv3\0"), count(b"acTL"), count(b"IDAT")], [1, 1, 1, 1]);
    assert!(picture_with_card(b"GIF89a", &[]).is_err());
}

#[test]
fn what_an_answer_may_depend_on_is_in_the_digest() {
    let base = json!({
        "name": "A", "post_history_instructions": "p", "description": "d",
        "character_book": {"entries": [{"keys": ["k"], "content": "c", "insertion_order": 1}]},
    });
    let read = |data: &Value| {
        let Value::Object(map) = json!({"spec": "chara_card_v2", "data": data}) else { unreachable!() };
        Card::from_map(map).unwrap().0
    };
    let plain = read(&base).effect("d");
    assert!(plain.is_some());
    let entry = |key: &str, value: Value| {
        let mut data = base.clone();
        data["character_book"]["entries"][0][key] = value;
        data
    };
    let field = |key: &str, value: Value| {
        let mut data = base.clone();
        data[key] = value;
        data
    };
    let of_book = |key: &str, value: Value| {
        let mut data = base.clone();
        data["character_book"][key] = value;
        data
    };
    let changes = [
        field("name", json!("B")),
        field("post_history_instructions", json!("q")),
        entry("keys", json!(["l"])),
        entry("content", json!("e")),
        entry("content", json!("@@scan_depth 1\nc")),
        entry("content", json!("@@exclude_keys x\nc")),
        entry("content", json!("@@activate_only_every 2\nc")),
        entry("constant", json!(true)),
        entry("case_sensitive", json!(true)),
        entry("use_regex", json!(true)),
        entry("insertion_order", json!(2)),
        entry("priority", json!(7)),
        entry("position", json!("before_char")),
        entry("enabled", json!(false)),
        of_book("scan_depth", json!(1)),
        of_book("token_budget", json!(9)),
        of_book("recursive_scanning", json!(true)),
    ];
    let mut seen = std::collections::BTreeSet::from([plain]);
    for data in &changes {
        assert!(seen.insert(read(data).effect("d")), "{data}");
    }
    for same in
        [field("tags", json!(["t"])), field("creator_notes", json!("n")), entry("comment", json!("n"))]
    {
        assert_eq!(read(&same).effect("d"), plain, "{same}");
    }
    let bare = read(&json!({"name": "A", "description": "d"}));
    assert_eq!(bare.effect("d"), None, "no more than its system text");
    assert!(bare.effect("{{char}} d").is_some());
}

const MUTATED: [&str; 7] = [
    "mira_v2.json",
    "mira_v3.json",
    "mira_v2.png",
    "mira_packed.png",
    "mira_v3.charx",
    "Modelfile",
    "mira_v1.json",
];

proptest! {
    #[test]
    fn random_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = import(&bytes);
    }

    #[test]
    fn damaged_files_never_panic(
        which in 0..MUTATED.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = fixture(MUTATED[which]);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(imported) = import(&bytes)
            && let Some(map) = imported.fields.get("card").and_then(Value::as_object)
        {
            // What is taken once is taken again from the store.
            let read = Card::from_map(map.clone()).expect("it was read").0;
            let again = Card::from_map(read.map()).expect("it was kept").0;
            prop_assert_eq!(read.digest(), again.digest());
            let Ok(_) = read.in_force(Said { texts: &["lamp storm island reef"], answers: 3 }, Which::Called, "Bo", &tokens);
        }
    }
}
