//! The evaluation with a made-up model on made-up people: what it finds, and that a run that was cut off goes on.

use super::data::tests::invented;
use super::*;
use serde_json::json;

/// A model that knows a person's own domain means by a share, and lets a run be cut off.
struct Scripted<'a> {
    data: &'a Data,
    /// Share of the person's deviation that an aligned answer shows.
    share: f64,
    calls: Vec<(Condition, usize)>,
    /// Fails at this call.
    cut: Option<usize>,
    fingerprint: &'static [u8],
    can_pas: bool,
}

impl<'a> Scripted<'a> {
    fn new(data: &'a Data) -> Scripted<'a> {
        Scripted { data, share: 0.8, calls: Vec::new(), cut: None, fingerprint: b"scripted", can_pas: true }
    }
}

impl Respond for Scripted<'_> {
    fn fingerprint(&self) -> Digest {
        Digest::of(self.fingerprint)
    }

    fn can(&self, condition: Condition) -> bool {
        self.can_pas || !matches!(condition, Condition::Pas | Condition::PasPaper)
    }

    fn respond(&mut self, condition: Condition, input: &Input<'_>) -> Result<Told, PapiError> {
        if self.cut == Some(self.calls.len()) {
            let rule = "cut off".to_owned();
            return Err(PapiError::Answers { condition: condition.name(), person: input.number, rule });
        }
        self.calls.push((condition, input.number));
        let inventory = &self.data.inventory;
        let own = crate::alignment::scoring::scores(inventory, &input.known);
        let share = match condition {
            Condition::NoChange | Condition::Population => 0.0,
            Condition::Ridge => self.share,
            _ => 0.1,
        };
        let one = |i: usize| {
            let item = &inventory.items[i];
            let mean = own.domain(item.domain).mean.unwrap_or(3.0);
            item.keyed(3.1 + share * (mean - 3.0) + 0.01 * (i % 7) as f64)
        };
        let predictions = inventory.unseen().into_iter().map(one).collect();
        Ok(Told { predictions, fit: json!({"share": share}), ms: 0.0 })
    }
}

fn options() -> Options {
    Options { people: 14, pas_people: 5, few_shot_people: 3, rounds: 200, seed: 7 }
}

fn target() -> Target {
    Target { description: json!({"model": "scripted"}), reproduce: "demeanor eval papi".into() }
}

struct Out(PathBuf);

impl Out {
    fn new(name: &str) -> Out {
        let path = std::env::temp_dir().join(format!("demeanor-papi-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Out(path)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).expect("it was written")
    }

    /// Results without their times.
    fn results(&self) -> Vec<Value> {
        let line = |line: &str| {
            let mut value: Value = serde_json::from_str(line).expect("a line");
            value["ms"] = Value::Null;
            value
        };
        self.text("results.jsonl").lines().map(line).collect()
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn evaluated(data: &Data, model: &mut Scripted<'_>, out: &Out) -> Result<Report, PapiError> {
    evaluate(data, model, &target(), &options(), &out.0, &mut |_| {})
}

#[test]
fn what_was_put_in_is_found() {
    let data = invented();
    let out = Out::new("found");
    let report = evaluated(&data, &mut Scripted::new(&data), &out).unwrap();
    let summary: Value = serde_json::from_str(&out.text("summary.json")).unwrap();
    let conditions = summary["conditions"].as_array().unwrap();
    let names: Vec<&str> = conditions.iter().filter_map(|condition| condition["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "no change",
            "population vector",
            "ridge",
            "ridge: the same mean shift only",
            "ridge: another person's vector",
            "pas",
            "pas: the same mean shift only",
            "pas: another person's vector",
            "pas, paper protocol",
            "few-shot",
            "few-shot: the same mean shift only",
            "few-shot: another person's lines"
        ]
    );
    let ridge = &conditions[2];
    for vs in ridge["vs"].as_array().unwrap().iter().filter(|vs| vs["minus"] != "population mean") {
        assert!(vs["ci"][1].as_f64().unwrap() < 0.0 && vs["p_holm"].as_f64().unwrap() < 0.05, "{vs}");
    }
    assert_eq!(ridge["vs"].as_array().unwrap().len(), 12);
    assert_eq!(ridge["metrics"]["expected"]["people"], 14);
    assert_eq!(conditions[5]["metrics"]["rounded"]["people"], 5);
    assert!(conditions[8]["vs"][0]["p_holm"].is_null() && conditions[8]["kind"] == "chosen on test items");
    assert_eq!(summary["baselines"].as_object().unwrap().len(), 8);
    // 14 people with two common rows, ridge and its controls; 5 with PAS, its controls and the paper's; 3 with few-shot and
    // its controls.
    let results = out.results();
    assert_eq!(results.len(), 180 * (14 * 5 + 5 * 4 + 3 * 3));
    let missing: Vec<&Value> = results.iter().filter(|line| line["gold"].is_null()).collect();
    assert!(missing.iter().all(|line| line["item"] == "p5/i9" && line["flags"][0] == "unanswered"));
    assert!(!missing.is_empty() && missing.iter().all(|line| line["metric"]["expected"].is_null()));
    let html = out.text("report.html");
    assert!(
        html.contains("The score of <code>ridge</code> is") && html.matches("<svg").count() == 9,
        "charts"
    );
    assert!(!html.contains("NaN"), "numbers that are none");
    assert!(report.table.contains("ridge minus no change, expected, 14 people"), "{}", report.table);
}

#[test]
fn a_run_that_was_cut_off_goes_on() {
    let data = invented();
    let (whole, parts) = (Out::new("whole"), Out::new("parts"));
    evaluated(&data, &mut Scripted::new(&data), &whole).unwrap();
    let mut first = Scripted { cut: Some(6), ..Scripted::new(&data) };
    let error = evaluated(&data, &mut first, &parts).unwrap_err().to_string();
    assert_eq!(error, "`ridge`, person 5: cut off");
    assert!(!parts.0.join("summary.json").exists());
    // The last line is half there, as after a loss of power; its person is run again.
    let mut text = parts.text("results.jsonl");
    text.truncate(text.len() - 40);
    std::fs::write(parts.0.join("results.jsonl"), text).unwrap();
    let mut second = Scripted::new(&data);
    evaluated(&data, &mut second, &parts).unwrap();
    assert_eq!(second.calls[0], (Condition::Ridge, 4));
    assert_eq!(second.calls.iter().filter(|call| call.0 == Condition::Ridge).count(), 11);
    assert!(second.calls.iter().all(|call| !call.0.is_common()), "common answers are kept");
    assert_eq!(parts.results(), whole.results());
    let mut third = Scripted::new(&data);
    evaluated(&data, &mut third, &parts).unwrap();
    assert_eq!(third.calls, []);
    assert_eq!(parts.results(), whole.results());
    // Another model answers anew.
    let mut other = Scripted { fingerprint: b"other", ..Scripted::new(&data) };
    evaluated(&data, &mut other, &parts).unwrap();
    assert_eq!(other.calls.len(), 2 + 14 + 5 + 5 + 3);
}

#[test]
fn runs_that_are_refused() {
    let data = invented();
    let out = Out::new("refused");
    for (options, message) in [
        (Options { people: 0, ..options() }, "`--people` is 0; expected 1 to 60"),
        (Options { people: 61, ..options() }, "`--people` is 61; expected 1 to 60"),
        (Options { pas_people: 15, ..options() }, "`--pas-people` is 15; expected 0 to 14"),
        (Options { few_shot_people: 99, ..options() }, "`--few-shot-people` is 99; expected 0 to 14"),
    ] {
        let error = evaluate(&data, &mut Scripted::new(&data), &target(), &options, &out.0, &mut |_| {});
        assert_eq!(error.err().map(|error| error.to_string()).as_deref(), Some(message));
        assert!(check(&data, &options).is_err());
    }
    std::fs::create_dir_all(&out.0).unwrap();
    for (text, message) in [
        (
            "{\"schema\":\"demeanor.eval/1\",\"benchmark\":\"papi\"}\nnonsense\n",
            "results.jsonl line 2: expected",
        ),
        ("{\"schema\":\"demeanor.eval/1\",\"benchmark\":\"mcq\"}\n", "line 1: no result of this benchmark"),
        (
            "{\"schema\":\"demeanor.eval/1\",\"benchmark\":\"papi\",\"request_digest\":\"12\"}\n",
            "is no digest",
        ),
    ] {
        std::fs::write(out.0.join("results.jsonl"), text).unwrap();
        let error = evaluated(&data, &mut Scripted::new(&data), &out).expect_err("refused").to_string();
        assert!(error.contains(message) && error.contains("hint: move it away"), "{error}");
        assert_eq!(out.text("results.jsonl"), text, "what is there stays");
    }
    let mut odd = Scripted { share: f64::NAN, ..Scripted::new(&data) };
    let error = evaluated(&data, &mut odd, &Out::new("odd")).expect_err("refused").to_string();
    assert!(error.contains("no finite number"), "{error}");
}

#[test]
fn what_a_model_cannot_do_is_left_out_and_said() {
    let data = invented();
    let out = Out::new("without");
    let mut model = Scripted { can_pas: false, ..Scripted::new(&data) };
    evaluated(&data, &mut model, &out).unwrap();
    let summary: Value = serde_json::from_str(&out.text("summary.json")).unwrap();
    let warnings = summary["warnings"].to_string();
    assert!(
        warnings.contains("`pas` is left out") && warnings.contains("`pas, paper protocol`"),
        "{warnings}"
    );
    assert_eq!(out.results().len(), 180 * (14 * 5 + 3 * 3));
}

#[test]
fn the_check_needs_no_model() {
    let data = invented();
    let text = check(&data, &options()).unwrap();
    assert!(text.contains("constant 3") && text.contains("forwards") && text.contains("alpha"), "{text}");
}
