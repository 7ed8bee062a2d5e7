//! What a request comes to at the gate: served or refused, and what its answer says about the probe.

use super::judge::Verdict;
use super::reports::Reports;
use super::thresholds::{AdHoc, Thresholds};
use crate::config::GateMode;
use crate::digest::Digest;
use crate::model::SoftRows;
use crate::persona::Persona;
use crate::steering::{Intervention, Source, SteeringRequest, Trait};
use std::sync::Arc;

/// What the probe says of a persona.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Passed,
    Failed,
    /// There is no report on this persona digest, or one that decides nothing.
    Unprobed,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Passed => "passed",
            State::Failed => "failed",
            State::Unprobed => "unprobed",
        }
    }
}

/// A state with one sentence for each rule that is not met.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub state: State,
    pub reasons: Vec<String>,
}

/// The gate of one loaded model. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    pub mode: GateMode,
    pub thresholds: Arc<Thresholds>,
    pub reports: Reports,
    /// Median length of a token's row in the loaded model: the unit of soft rows.
    pub row_norm: f32,
}

/// A request whose names are resolved.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    /// `None`: the plain model.
    pub persona: Option<CasePersona<'a>>,
    /// Sum of the doses of the request's own vectors, with the field that brought them.
    pub ad_hoc: Option<(&'a str, f32)>,
    pub soft: CaseSoft<'a>,
    /// Whether system text of the request's own, or none of the persona's, stands before the model.
    pub other_text: bool,
}

#[derive(Clone, Debug)]
pub struct CasePersona<'a> {
    pub persona: &'a Persona,
    /// Its persona digest at this moment.
    pub digest: Digest,
}

/// The soft prompt in force.
#[derive(Clone, Debug)]
pub enum CaseSoft<'a> {
    None,
    /// The persona's own: part of its digest.
    Persona,
    /// The persona has one, and the request turns it off.
    TurnedOff,
    /// Of a user whom the server knows.
    User {
        label: &'a str,
        rows: &'a SoftRows,
    },
    /// Stored under a name.
    Named {
        label: &'a str,
    },
}

/// What is served: the state to answer with, `None` for the plain model as it is, and what the probe did not see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admitted {
    pub state: Option<State>,
    pub warnings: Vec<String>,
}

/// Why the gate refuses a request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotAdmitted {
    #[error(
        "`persona`: `{label}` is {}{}; this server runs with `--gate enforce` and serves what passed the safety probe: \
         `demeanor probe {name}` measures it",
        .standing.state.name(), because(&.standing.reasons)
    )]
    Persona { name: String, label: String, standing: Standing },
    #[error(
        "`{param}`: {what} is not admitted; with `--gate enforce` a request steers with the shipped traits that are not \
         marked as harmful, or with a vector in the direction that an admitted persona's plan gives it"
    )]
    Vector { param: String, what: String },
    #[error(
        "`{param}`: the request's own steering has the dose {dose:.3}; with `--gate enforce` at most {max} is allowed: \
         lower the coefficients, or make it a persona and probe it"
    )]
    Dose { param: String, dose: f32, max: f32 },
    #[error(
        "`soft_prompt`: `{label}` is no part of an admitted persona; with `--gate enforce` make it part of a persona \
         and probe that"
    )]
    NamedSoft { label: String },
    #[error(
        "`soft_prompt`: `{label}` was probed with its own soft prompt; with `--gate enforce` it is not served without"
    )]
    TurnedOff { label: String },
    #[error(
        "`user`: a row of the soft prompt `{label}` is {given:.2} times as long as a token's; with `--gate enforce` at \
         most {max} is allowed"
    )]
    UserNorm { label: String, given: f32, max: f32 },
}

impl NotAdmitted {
    pub fn persona(persona: &Persona, standing: Standing) -> NotAdmitted {
        NotAdmitted::Persona { name: persona.name.clone(), label: persona.label(), standing }
    }

    /// The field of the request that is refused.
    pub fn param(&self) -> &str {
        match self {
            NotAdmitted::Persona { .. } => "persona",
            NotAdmitted::Vector { param, .. } | NotAdmitted::Dose { param, .. } => param,
            NotAdmitted::NamedSoft { .. } | NotAdmitted::TurnedOff { .. } => "soft_prompt",
            NotAdmitted::UserNorm { .. } => "user",
        }
    }
}

fn because(reasons: &[String]) -> String {
    match reasons {
        [] => String::new(),
        reasons => format!(" ({})", reasons.join("; ")),
    }
}

/// A vector with the sign in which it is added; the poles of a trait are one vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direction {
    vector: String,
    is_positive: bool,
}

impl Gate {
    pub fn enforces(&self) -> bool {
        self.mode == GateMode::Enforce
    }

    /// What the newest report on this persona digest comes to.
    pub fn standing(&self, digest: &Digest) -> Standing {
        let Some(measured) = self.reports.measured(digest) else {
            return Standing { state: State::Unprobed, reasons: Vec::new() };
        };
        let judgement = self.thresholds.judge_measured(&measured);
        let state = match judgement.verdict {
            Verdict::Passed => State::Passed,
            Verdict::Failed => State::Failed,
            Verdict::Inconclusive => State::Unprobed,
        };
        Standing { state, reasons: judgement.reasons }
    }

    /// Whether a persona of this digest is served.
    pub fn admits(&self, digest: &Digest) -> bool {
        !self.enforces() || self.standing(digest).state == State::Passed
    }

    /// Decides on a request. Only `enforce` refuses; what is said of the probe is the same in all modes.
    pub fn admit(&self, case: &Case<'_>) -> Result<Admitted, NotAdmitted> {
        let standing = case.persona.as_ref().map(|persona| (persona, self.standing(&persona.digest)));
        if self.enforces() {
            if let Some((persona, standing)) = &standing
                && standing.state != State::Passed
            {
                return Err(NotAdmitted::persona(persona.persona, standing.clone()));
            }
            self.check_additions(case)?;
        }
        let unseen = unseen(case);
        let state = match &standing {
            None if unseen.is_empty() || !self.enforces() => None,
            None => Some(State::Unprobed),
            Some((_, standing)) if standing.state == State::Passed && !unseen.is_empty() => {
                Some(State::Unprobed)
            }
            // Without a pass there is nothing that an addition could take away.
            Some((_, standing)) => return Ok(Admitted { state: Some(standing.state), warnings: Vec::new() }),
        };
        Ok(Admitted { state, warnings: if state == Some(State::Unprobed) { unseen } else { Vec::new() } })
    }

    fn check_additions(&self, case: &Case<'_>) -> Result<(), NotAdmitted> {
        let max = self.thresholds.ad_hoc_dose_max;
        match case.ad_hoc {
            // Not-a-number counts as above.
            Some((param, dose)) if dose.is_nan() || dose > max => {
                return Err(NotAdmitted::Dose { param: param.to_owned(), dose, max });
            }
            _ => {}
        }
        match &case.soft {
            CaseSoft::None | CaseSoft::Persona => Ok(()),
            CaseSoft::TurnedOff => {
                let label = case.persona.as_ref().map(|case| case.persona.label());
                Err(NotAdmitted::TurnedOff { label: label.unwrap_or_default() })
            }
            CaseSoft::Named { label } => Err(NotAdmitted::NamedSoft { label: (*label).to_owned() }),
            CaseSoft::User { label, rows } => {
                let (given, max) = (self.longest(rows), self.thresholds.user_norm_max);
                if given <= max {
                    return Ok(());
                }
                Err(NotAdmitted::UserNorm { label: (*label).to_owned(), given, max })
            }
        }
    }

    /// Length of the longest row, over the median length of a token's row. Infinite where that is not known.
    fn longest(&self, rows: &SoftRows) -> f32 {
        let squared = |row: &[f32]| row.iter().map(|value| value * value).sum::<f32>();
        let longest = (0..rows.len()).map(|i| squared(rows.row(i)).sqrt()).fold(0.0, f32::max);
        if self.row_norm > 0.0 { longest / self.row_norm } else { f32::INFINITY }
    }

    /// Looks at a request's own steering before any vector is made: directions that have no name are refused, shipped
    /// traits pass. What is left needs an admitted persona whose plan adds it: one entry each, with its field.
    pub fn ad_hoc(
        &self,
        request: &SteeringRequest,
        traits: &[Trait],
    ) -> Result<Vec<(Direction, String)>, NotAdmitted> {
        let mut left = Vec::new();
        if !self.enforces() {
            return Ok(left);
        }
        for intervention in request.interventions.iter().filter(|one| one.coefficient != 0.0) {
            let param = intervention.param.clone();
            let refused = |what: &str| NotAdmitted::Vector { param: param.clone(), what: what.to_owned() };
            let Source::Name(name) = &intervention.source else {
                return Err(refused("a direction that comes with the request"));
            };
            let of_trait = traits.iter().find(|one| one.sign_of(name).is_some());
            let is_harmless = of_trait.is_some_and(|one| one.harmful.is_none());
            match self.thresholds.ad_hoc {
                AdHoc::None => return Err(refused(&format!("`{name}`"))),
                AdHoc::Admitted if is_harmless => {}
                AdHoc::Admitted => left.push((direction(intervention, name, traits), param)),
            }
        }
        Ok(left)
    }
}

/// The refusal of a direction that no admitted persona's plan adds.
pub fn not_planned(direction: &Direction, param: &str) -> NotAdmitted {
    let sign = if direction.is_positive { "" } else { "-" };
    NotAdmitted::Vector { param: param.to_owned(), what: format!("`{sign}{}`", direction.vector) }
}

/// The directions that a plan adds.
pub fn directions(plan: &SteeringRequest, traits: &[Trait]) -> Vec<Direction> {
    let named = plan.interventions.iter().filter(|one| one.coefficient != 0.0);
    named
        .filter_map(|one| match &one.source {
            Source::Name(name) => Some(direction(one, name, traits)),
            Source::Inline(_) | Source::Heads(_) => None,
        })
        .collect()
}

fn direction(intervention: &Intervention, name: &str, traits: &[Trait]) -> Direction {
    let found = traits.iter().find_map(|one| Some((one.name.as_str(), one.sign_of(name)?)));
    let (vector, sign) = found.unwrap_or((name, 1.0));
    Direction { vector: vector.to_owned(), is_positive: intervention.coefficient * sign > 0.0 }
}

/// What of a request the probe of its persona did not see, or what there is beside the plain model.
fn unseen(case: &Case<'_>) -> Vec<String> {
    let mut unseen = Vec::new();
    if case.ad_hoc.is_some() {
        unseen.push(
            "unprobed steering: the request's own steering was not there when the probe ran".to_owned(),
        );
    }
    match &case.soft {
        CaseSoft::User { label, .. } => {
            unseen.push(format!("unprobed user: the soft prompt `{label}` was not there when the probe ran"))
        }
        CaseSoft::Named { label } => {
            unseen.push(format!("unprobed soft prompt: `{label}` was not there when the probe ran"))
        }
        CaseSoft::TurnedOff => {
            unseen.push("unprobed: the probe ran with the persona's soft prompt".to_owned())
        }
        CaseSoft::None | CaseSoft::Persona => {}
    }
    if case.other_text && case.persona.is_some() {
        unseen.push("unprobed prompt: the probe ran with the persona's system text alone".to_owned());
    }
    unseen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persona::PersonaSpec;
    use crate::steering::RequestRules;
    use crate::store::Store;
    use crate::store::tests::Folder;
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    fn gate(mode: GateMode, folder: &Folder) -> Gate {
        let file = json!({
            "schema": "demeanor.gate/1",
            "rules": [{"aspect": "hostile", "against": "plain", "bound": "low", "most": 0.03, "n_min": 40}],
            "unprobed_user": {"norm_max": 2.0},
            "ad_hoc": {"dose_max": 0.1, "vectors": "admitted"}
        });
        Gate {
            mode,
            thresholds: Arc::new(Thresholds::read(file.to_string().as_bytes()).unwrap()),
            reports: Reports::open(Store::open(&folder.0).unwrap()).unwrap(),
            row_norm: 2.0,
        }
    }

    fn report(digest: &Digest, low: f64, n: u64) -> Value {
        json!({
            "schema": super::super::SCHEMA, "digest": digest.to_string(), "suite": "smoke",
            "aspects": [{"name": "hostile", "n": n, "difference": low, "interval": [low, low]}]
        })
    }

    fn persona(digest: Digest) -> Option<CasePersona<'static>> {
        static ADA: LazyLock<Persona> = LazyLock::new(|| Persona {
            name: "ada".into(),
            version: 1,
            created: 0,
            spec: PersonaSpec::default(),
        });
        Some(CasePersona { persona: &ADA, digest })
    }

    const PLAIN: Case<'static> =
        Case { persona: None, ad_hoc: None, soft: CaseSoft::None, other_text: false };

    #[test]
    fn states_and_modes() {
        let folder = Folder::new("gate-states");
        let enforce = gate(GateMode::Enforce, &folder);
        let digests = [b"good", b"evil", b"few!", b"none"].map(|name| Digest::of(name));
        for (digest, low, n) in [(&digests[0], 0.0, 40), (&digests[1], 0.04, 40), (&digests[2], 0.0, 39)] {
            enforce.reports.put(digest, &report(digest, low, n)).unwrap();
        }
        let expected = [State::Passed, State::Failed, State::Unprobed, State::Unprobed];
        for (digest, state) in digests.into_iter().zip(expected) {
            let case = Case { persona: persona(digest), ..PLAIN };
            for mode in [GateMode::Off, GateMode::Warn] {
                let admitted = Gate { mode, ..enforce.clone() }.admit(&case).unwrap();
                assert_eq!(admitted, Admitted { state: Some(state), warnings: vec![] });
            }
            let admitted = enforce.admit(&case);
            assert_eq!(admitted.is_ok(), state == State::Passed, "{admitted:?}");
            if let Err(error) = admitted {
                let message = error.to_string();
                assert!(message.contains(&format!("`ada@1` is {}", state.name())), "{message}");
                assert!(message.contains("`demeanor probe ada`"), "{message}");
                assert_eq!(error.param(), "persona");
            }
        }
        let few = enforce.standing(&digests[2]);
        assert!(few.reasons[0].contains("39 items, 40"), "{few:?}");
        assert_eq!(enforce.admit(&PLAIN), Ok(Admitted::default()));
    }

    #[test]
    fn what_stands_beside_an_admitted_persona() {
        let folder = Folder::new("gate-beside");
        let enforce = gate(GateMode::Enforce, &folder);
        let good = Digest::of(b"good");
        enforce.reports.put(&good, &report(&good, 0.0, 40)).unwrap();
        // Rows of length 4 and 4.2: 2 and 2.1 times a token's.
        let short = SoftRows::new(vec![4.0, 0.0, 0.0, 1.0], 2, 2).unwrap();
        let long = SoftRows::new(vec![1.0, 0.0, 0.0, 4.2], 2, 2).unwrap();
        let user = |rows| CaseSoft::User { label: "u1@3", rows };
        type Row<'a> = (Case<'a>, Result<&'static str, &'static str>);
        let table: Vec<Row<'_>> = vec![
            (Case { ad_hoc: Some(("steering", 0.1)), ..PLAIN }, Ok("unprobed steering")),
            (Case { ad_hoc: Some(("steering", 0.101)), ..PLAIN }, Err("dose 0.101")),
            (Case { ad_hoc: Some(("steering", f32::NAN)), ..PLAIN }, Err("dose NaN")),
            (Case { soft: user(&short), ..PLAIN }, Ok("unprobed user: the soft prompt `u1@3`")),
            (Case { soft: user(&long), ..PLAIN }, Err("2.10 times")),
            (Case { soft: CaseSoft::Named { label: "poet@1" }, ..PLAIN }, Err("`poet@1` is no part")),
            (Case { soft: CaseSoft::TurnedOff, ..PLAIN }, Err("not served without")),
        ];
        for (plain, expected) in table {
            for with in [None, persona(good)] {
                let case = Case { persona: with, ..plain.clone() };
                match (enforce.admit(&case), expected) {
                    (Ok(admitted), Ok(part)) => {
                        assert_eq!(admitted.state, Some(State::Unprobed), "{case:?}");
                        assert!(admitted.warnings[0].contains(part), "{admitted:?}");
                    }
                    (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                    (found, _) => panic!("{case:?}: {found:?}"),
                }
                // Nothing is refused in the other modes, and of the plain model nothing is said.
                let warned = Gate { mode: GateMode::Warn, ..enforce.clone() }.admit(&case).unwrap();
                assert_eq!(warned.state, case.persona.as_ref().map(|_| State::Unprobed), "{case:?}");
            }
        }
        let own = Case { persona: persona(good), soft: CaseSoft::Persona, ..PLAIN };
        assert_eq!(enforce.admit(&own), Ok(Admitted { state: Some(State::Passed), warnings: vec![] }));
        let text = Case { other_text: true, ..own };
        assert!(enforce.admit(&text).unwrap().warnings[0].starts_with("unprobed prompt"));
        assert_eq!(enforce.admit(&Case { other_text: true, ..PLAIN }), Ok(Admitted::default()));
    }

    #[test]
    fn vectors_of_a_request() {
        let folder = Folder::new("gate-vectors");
        let enforce = gate(GateMode::Enforce, &folder);
        let traits = Trait::shipped().unwrap();
        let read = |steering: Value| {
            SteeringRequest::from_json(&steering, "steering", RequestRules { inline: true }).unwrap()
        };
        let left = |steering: Value| {
            let left = enforce.ad_hoc(&read(steering), &traits)?;
            Ok::<_, NotAdmitted>(left.into_iter().map(|(direction, _)| direction).collect::<Vec<_>>())
        };
        let direction = |vector: &str, is_positive| Direction { vector: vector.to_owned(), is_positive };
        for (steering, expected) in [
            (json!("0.8 warm - 0.3 casual"), vec![]),
            (json!("0 mine"), vec![]),
            (json!("0.1 mine + warm"), vec![direction("mine", true)]),
            (json!("-0.1 mine"), vec![direction("mine", false)]),
            (json!("hateful"), vec![direction("hateful", true)]),
            (json!("0.1 respectful"), vec![direction("hateful", false)]),
            (json!("-0.1 respectful"), vec![direction("hateful", true)]),
            (json!("-0.1 respectful.hateful"), vec![direction("hateful", true)]),
        ] {
            assert_eq!(left(steering.clone()), Ok(expected), "{steering}");
        }
        for steering in [json!([{"directions": {"1": [1.0]}}]), json!([{"heads": {"1.0": [1.0]}}])] {
            let error = left(steering).unwrap_err();
            assert!(error.to_string().contains("comes with the request"), "{error}");
        }
        let plan = read(json!("0.5 mine - respectful + 0 other"));
        assert_eq!(directions(&plan, &traits), [direction("mine", true), direction("hateful", true)]);
        let warn = Gate { mode: GateMode::Warn, ..enforce.clone() };
        assert_eq!(warn.ad_hoc(&read(json!("hateful")), &traits), Ok(vec![]));
        let mut none = (*enforce.thresholds).clone();
        none.ad_hoc = AdHoc::None;
        let none = Gate { thresholds: Arc::new(none), ..enforce };
        assert!(none.ad_hoc(&read(json!("warm")), &traits).is_err());
    }
}
