//! From names to what they stand for: a persona's plan and the request's steering as edits, one soft prompt of all that
//! is offered, the persona's digest. Steering adds up, a soft prompt is one or none.

use super::names::{Named, SoftChoice, SteeringFrom};
use super::prepare::plan;
use crate::digest::Digest;
use crate::engine::Sampling;
use crate::persona::{
    Condition, Offer, OfferedRows, PersonaParts, PersonaSoft, PersonaSpec, SamplingDefaults, Source, one_of,
    persona_digest,
};
use crate::server::Context;
use crate::server::error::{ApiError, ErrorCode};
use crate::steering::Applied;
use crate::users::{UserPrompt, Users};
use serde_json::Value;

/// What a request's names come to.
pub struct Resolved {
    pub named: Named,
    /// Persona's plan and request's steering together.
    pub applied: Applied,
    /// The soft prompt in force.
    pub soft: Option<OfferedRows>,
    /// [`persona_digest`] of the persona, or of the plain model.
    pub persona: Digest,
    pub warnings: Vec<String>,
}

impl Resolved {
    /// The condition, as far as names decide it.
    pub fn condition(&self, context: &Context, sampling: Sampling) -> Condition {
        let mut condition = Condition::new(self.applied.edits.clone(), sampling);
        condition.persona = self.persona;
        condition.bos = context.text.begin_token();
        if let Some(soft) = &self.soft {
            condition.soft = soft.rows.clone();
            condition.soft_label = Some(soft.label.clone());
            condition.owner = soft.owner;
        }
        condition
    }

    /// Positions that the soft prompt takes of the context.
    pub fn soft_rows(&self) -> usize {
        self.soft.as_ref().map_or(0, |soft| soft.rows.len())
    }

    /// What an answer calls its model: what the request's own model name would have to be.
    pub fn model_name(&self, context: &Context) -> String {
        match (self.named.steering_from, self.named.steering.canonical(), &self.named.persona) {
            (Some(SteeringFrom::Model), Value::String(expression), _) => {
                format!("{}@({expression})", context.model)
            }
            (_, _, Some(persona)) => format!("{}@{}", context.model, persona.name),
            _ => context.model.clone(),
        }
    }

    /// `ada@1`.
    pub fn persona_label(&self) -> Option<String> {
        self.named.persona.as_ref().map(|persona| persona.label())
    }
}

/// Looks everything up. `query` is the last user message, for soft prompts that depend on it. Waits for vectors at most
/// `--extract-wait`.
pub async fn resolve(context: &Context, named: Named, query: Option<String>) -> Result<Resolved, ApiError> {
    let plain = PersonaSpec::default();
    let spec = named.persona.as_ref().map_or(&plain, |persona| &persona.spec);
    let own = plan(context, &spec.steering).await?;
    let own_edits = own.edits.digest();
    let applied = if named.steering.is_empty() {
        own
    } else {
        plan(context, &spec.steering.and(&named.steering)?).await?
    };
    let softs = look_up(context, &named, spec, query).await?;
    let mut warnings = softs.warnings;
    warnings.extend(applied.warnings.iter().cloned());
    let soft = match named.soft_prompt {
        SoftChoice::Off => None,
        SoftChoice::Unsaid | SoftChoice::Named(_) => {
            let offers = softs.request.into_iter().chain(softs.persona.offer.clone()).collect();
            one_of(offers)?.and_then(|offer| offer.rows)
        }
    };
    if let Some(soft) = soft.as_ref().filter(|soft| !soft.effect) {
        warnings.push(format!(
            "no user effect expected: the history behind `{}` says too little, the constant prompt stands in",
            soft.label
        ));
    }
    let persona = digest_of(context, spec, own_edits, &softs.persona);
    Ok(Resolved { applied, soft, persona, warnings, named })
}

/// Soft prompts that fields and persona bring.
#[derive(Default)]
struct Softs {
    request: Vec<Offer>,
    persona: PersonaOffer,
    warnings: Vec<String>,
}

/// A persona's own soft prompt, and how its digest names it.
#[derive(Default)]
pub struct PersonaOffer {
    offer: Option<Offer>,
    /// Why there is none though the persona names one.
    pub missing: Option<String>,
}

/// Users and soft prompts are read on a thread of their own: that may touch the disk and run the encoder.
async fn look_up(
    context: &Context,
    named: &Named,
    spec: &PersonaSpec,
    query: Option<String>,
) -> Result<Softs, ApiError> {
    let of_persona = spec.soft_prompt.is_some() || spec.user.is_some();
    let of_request = matches!(named.soft_prompt, SoftChoice::Named(_)) || !named.users.is_empty();
    let is_off = named.soft_prompt == SoftChoice::Off;
    if !of_persona && (!of_request || is_off) {
        return Ok(Softs::default());
    }
    let (users, choice, ids) = (context.users.clone(), named.soft_prompt.clone(), named.users.clone());
    let (soft_prompt, user) = (spec.soft_prompt.clone(), spec.user.clone());
    let work = move || {
        let query = query.as_deref();
        let own = persona_offer(&users, "persona", soft_prompt, user, query);
        if is_off {
            // It is part of the persona's digest all the same, where it can be found.
            return Ok(Softs { persona: own.unwrap_or_default(), ..Softs::default() });
        }
        let mut softs = Softs { persona: own?, ..Softs::default() };
        softs.warnings.extend(softs.persona.missing.clone());
        if let SoftChoice::Named(name) = choice {
            softs.request.push(named_offer(&users, "soft_prompt", name)?);
        }
        for (carrier, id) in ids {
            softs.request.extend(user_offer(&users, carrier, id, query, &mut softs.warnings));
        }
        Ok(softs)
    };
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?
}

/// What a persona's `soft_prompt` or `user` brings. A user that is gone leaves the persona as it is otherwise; a named
/// soft prompt that is gone is an error, as a vector that is gone is.
fn persona_offer(
    users: &Users,
    carrier: &'static str,
    soft_prompt: Option<String>,
    user: Option<String>,
    query: Option<&str>,
) -> Result<PersonaOffer, ApiError> {
    let mut found = PersonaOffer::default();
    if let Some(name) = soft_prompt {
        found.offer = Some(named_offer(users, carrier, name)?);
    }
    if let Some(id) = user {
        let mut warnings = Vec::new();
        found.offer = user_offer(users, carrier, id.clone(), query, &mut warnings);
        let gone = || format!("the persona's user `{id}` is not known here; its soft prompt is left out");
        found.missing = warnings.pop().or_else(|| found.offer.is_none().then(gone));
    }
    Ok(found)
}

fn named_offer(users: &Users, carrier: &'static str, name: String) -> Result<Offer, ApiError> {
    match users.named(&name)? {
        Some(found) => {
            let rows =
                OfferedRows { rows: found.rows, label: found.label, owner: Digest::default(), effect: true };
            Ok(Offer { carrier, source: Source::Named(name), rows: Some(rows) })
        }
        None => {
            let shown: String = name.chars().take(80).collect();
            let message = format!("there is no soft prompt `{shown}` for the loaded model");
            Err(ApiError::at(ErrorCode::SoftPromptNotFound, carrier, message))
        }
    }
}

/// `None`: the server knows nobody of this name, and that is no error.
fn user_offer(
    users: &Users,
    carrier: &'static str,
    id: String,
    query: Option<&str>,
    warnings: &mut Vec<String>,
) -> Option<Offer> {
    let rows = match users.prompt_for(&id, query) {
        UserPrompt::Unknown => return None,
        UserPrompt::NotReady(why) => {
            warnings.push(why);
            None
        }
        UserPrompt::Ready { rows, label, effect, owner, .. } => {
            Some(OfferedRows { rows, label, owner, effect })
        }
    };
    Some(Offer { carrier, source: Source::User(id), rows })
}

fn digest_of(context: &Context, spec: &PersonaSpec, edits: Digest, own: &PersonaOffer) -> Digest {
    let soft = match own.offer.as_ref().map(|offer| (&offer.source, &offer.rows)) {
        Some((Source::Named(_), Some(found))) => PersonaSoft::Rows(found.rows.digest()),
        Some((Source::User(_), Some(found))) => PersonaSoft::User(&found.label),
        Some((_, None)) | None => PersonaSoft::None,
    };
    persona_digest(&PersonaParts {
        weights: context.engine.info().weights_digest,
        template: context.template,
        system: &spec.system,
        edits,
        soft,
        sampling: &spec.sampling,
    })
}

/// The digest of a persona that is about to be stored: its plan is compiled, its soft prompt looked up; whatever is
/// wrong with it is refused here.
pub async fn digest_checked(context: &Context, spec: &PersonaSpec) -> Result<(Digest, Applied), ApiError> {
    let applied = plan(context, &spec.steering).await?;
    let own = own_offer(context, spec).await?;
    Ok((digest_of(context, spec, applied.edits.digest(), &own), applied))
}

/// The digest of a stored persona as it is now, or why there is none: a vector of its plan is gone or not made yet.
pub async fn digest_now(context: &Context, spec: &PersonaSpec) -> Result<Digest, ApiError> {
    let library = context.library.clone();
    let steering = spec.steering.clone();
    let applied = tokio::task::spawn_blocking(move || library.plan_now(&steering))
        .await
        .map_err(ApiError::internal)??
        .ok_or_else(|| ApiError::new(ErrorCode::VectorNotReady, "a vector of its plan is not made yet"))?;
    let own = own_offer(context, spec).await?;
    Ok(digest_of(context, spec, applied.edits.digest(), &own))
}

async fn own_offer(context: &Context, spec: &PersonaSpec) -> Result<PersonaOffer, ApiError> {
    if spec.soft_prompt.is_none() && spec.user.is_none() {
        return Ok(PersonaOffer::default());
    }
    let (users, soft_prompt, user) = (context.users.clone(), spec.soft_prompt.clone(), spec.user.clone());
    tokio::task::spawn_blocking(move || persona_offer(&users, "soft_prompt", soft_prompt, user, None))
        .await
        .map_err(ApiError::internal)?
}

/// Whether a request's sampling may fall back on a persona's.
pub fn defaults(named: &Named) -> &SamplingDefaults {
    static NONE: std::sync::LazyLock<SamplingDefaults> = std::sync::LazyLock::new(SamplingDefaults::default);
    named.persona.as_ref().map_or(&NONE, |persona| &persona.spec.sampling)
}
