//! From names to what they stand for: a persona's plan and the request's steering as edits, one soft prompt of all that
//! is offered, the persona's digest. Steering adds up, a soft prompt is one or none.

use super::admission::{self, InForce};
use super::messages::{have_system, last_user_text};
use super::names::{Named, SoftChoice, SteeringFrom};
use super::prepare::plan;
use crate::digest::Digest;
use crate::engine::Sampling;
use crate::persona::card::Which;
use crate::persona::gate::State;
use crate::persona::{
    Condition, Offer, OfferedRows, Persona, PersonaParts, PersonaSoft, PersonaSpec, SamplingDefaults, Source,
    frame, one_of, persona_digest,
};
use crate::probe::{Soft, Subject};
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::error::{ApiError, ErrorCode};
use crate::steering::Applied;
use crate::text::{ChatOptions, Message, TextError};
use crate::users::{UserPrompt, Users};
use serde_json::Value;
use std::sync::Arc;

/// What a request's names come to.
pub struct Resolved {
    pub named: Named,
    /// Persona's plan and request's steering together.
    pub applied: Applied,
    /// The soft prompt in force.
    pub soft: Option<OfferedRows>,
    /// [`persona_digest`] of the persona, or of the plain model.
    pub persona: Digest,
    /// What the probe says of this; `None` for the plain model.
    pub probe: Option<State>,
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
        if self.named.steering_from == Some(SteeringFrom::Model)
            && let Value::String(expression) = self.named.steering.canonical()
        {
            return format!("{}@({expression})", context.model);
        }
        match &self.named.persona {
            Some(persona) => format!("{}@{}", context.model, persona.name),
            None => context.model.clone(),
        }
    }

    /// `ada@1`.
    pub fn persona_label(&self) -> Option<String> {
        self.named.persona.as_ref().map(|persona| persona.label())
    }
}

/// A chat whose persona puts its texts around it.
pub struct Chat<'a> {
    pub messages: &'a mut Vec<Message>,
    pub template: &'a mut ChatOptions,
}

impl Chat<'_> {
    /// Puts the persona's texts around the messages. With a card that is done on a thread of its own: keys are looked
    /// for and entries counted in tokens.
    pub async fn frame(self, context: &Context, persona: &Arc<Persona>) -> Result<Around, ApiError> {
        let persona = persona.clone();
        let messages = std::mem::take(self.messages);
        let (tokenizer, has_card) = (context.text.tokenizer.clone(), persona.spec.card.is_some());
        let work = move || -> Result<_, TextError> {
            let tokens = |text: &str| tokenizer.count(text);
            frame(&persona.spec.system, persona.spec.card.as_deref(), messages, &tokens, Which::Called)
        };
        let framed = if has_card { blocking(work).await? } else { work()? };
        *self.messages = framed.messages;
        self.template.put_first += framed.put_first;
        self.template.put_last = framed.put_last;
        Ok(Around { warnings: framed.warnings, has_unprobed: framed.has_unprobed })
    }
}

/// What is to say of a persona's texts around a chat.
pub struct Around {
    pub warnings: Vec<String>,
    /// Something stands in them that the persona's probe did not see.
    pub has_unprobed: bool,
}

/// Looks everything up and puts the persona's texts around the chat, where there is one; its last user message is for soft
/// prompts that depend on it. Waits for vectors at most `--extract-wait`.
pub async fn resolve(
    context: &Context,
    mut named: Named,
    chat: Option<Chat<'_>>,
) -> Result<Resolved, ApiError> {
    let query = chat.as_ref().and_then(|chat| last_user_text(chat.messages));
    let mut warnings = Vec::new();
    if let Some(chat) = chat {
        // Templates put tools into the system message.
        named.other_text = have_system(chat.messages) || !chat.template.tools.is_empty();
        if let Some(persona) = named.persona.clone() {
            let around = chat.frame(context, &persona).await?;
            named.other_text |= around.has_unprobed;
            warnings.extend(around.warnings);
        }
    }
    admission::check_steering(context, &named).await?;
    let plain = PersonaSpec::default();
    let spec = named.persona.as_ref().map_or(&plain, |persona| &persona.spec);
    let own = plan(context, &spec.steering).await?;
    let (own_edits, own_vectors) = (own.edits.digest(), own.vectors.len());
    let applied = if named.steering.is_empty() {
        own
    } else if spec.steering.is_empty() {
        plan(context, &named.steering).await?
    } else {
        plan(context, &spec.steering.and(&named.steering)?).await?
    };
    let softs = look_up(context, &named, spec, query).await?;
    warnings.extend(softs.warnings);
    warnings.extend(applied.warnings.iter().cloned());
    let persona = digest_of(context, spec, own_edits, softs.persona.as_ref());
    let own_source = softs.persona.as_ref().map(|offer| offer.source.clone());
    let offer = match named.soft_prompt {
        SoftChoice::Off => None,
        SoftChoice::Unsaid | SoftChoice::Named(_) => {
            one_of(softs.request.into_iter().chain(softs.persona).collect())?
        }
    };
    let in_force = match (&offer, &own_source) {
        (None, Some(_)) => InForce::TurnedOff,
        (None, None) => InForce::None,
        (Some(offer), Some(own)) if offer.source == *own => InForce::Own,
        (Some(Offer { rows: None, .. }), _) => InForce::None,
        (Some(Offer { source, rows: Some(rows), .. }), _) => InForce::OfRequest(source, rows),
    };
    let added = applied.vectors.get(own_vectors..).unwrap_or_default();
    let admitted = admission::admit(context, &named, persona, added, in_force)?;
    warnings.extend(admitted.warnings);
    let soft = offer.and_then(|offer| offer.rows);
    if let Some(soft) = soft.as_ref().filter(|soft| !soft.effect) {
        warnings.push(format!(
            "no user effect expected: the history behind `{}` says too little, the constant prompt stands in",
            soft.label
        ));
    }
    Ok(Resolved { applied, soft, persona, probe: admitted.state, warnings, named })
}

/// Soft prompts that fields and persona bring.
#[derive(Default)]
struct Softs {
    request: Vec<Offer>,
    persona: Option<Offer>,
    warnings: Vec<String>,
}

/// Users and soft prompts are read on a thread of their own: that may touch the disk and run the encoder.
async fn look_up(
    context: &Context,
    named: &Named,
    spec: &PersonaSpec,
    query: Option<String>,
) -> Result<Softs, ApiError> {
    let of_persona = spec.soft_prompt.is_some() || spec.user.is_some();
    let is_off = named.soft_prompt == SoftChoice::Off;
    let is_named = matches!(named.soft_prompt, SoftChoice::Named(_));
    if !of_persona && is_off {
        return Ok(Softs::default());
    }
    if !of_persona
        && !is_named
        && let Some(softs) = at_hand(&context.users, &named.users)
    {
        named.users.iter().for_each(|_| context.metrics.count_soft_prompt(true));
        return Ok(softs);
    }
    named.users.iter().filter(|_| !is_off).for_each(|_| context.metrics.count_soft_prompt(false));
    let (users, choice, ids) = (context.users.clone(), named.soft_prompt.clone(), named.users.clone());
    let (soft_prompt, user) = (spec.soft_prompt.clone(), spec.user.clone());
    let work = move || -> Result<Softs, ApiError> {
        let query = query.as_deref();
        let mut warnings = Vec::new();
        let own = persona_offer(&users, "persona", soft_prompt, user, query, &mut warnings);
        if is_off {
            // It is part of the persona's digest all the same, where it can be found.
            return Ok(Softs { persona: own.unwrap_or_default(), ..Softs::default() });
        }
        let mut softs = Softs { persona: own?, warnings, ..Softs::default() };
        if let SoftChoice::Named(name) = choice {
            softs.request.push(named_offer(&users, "soft_prompt", name)?);
        }
        for (carrier, id) in ids {
            softs.request.extend(user_offer(&users, carrier, id, query, &mut softs.warnings));
        }
        Ok(softs)
    };
    blocking(work).await
}

/// What a persona's `soft_prompt` or `user` brings. A user that is gone leaves the persona as it is otherwise; a named
/// soft prompt that is gone is an error, as a vector that is gone is.
fn persona_offer(
    users: &Users,
    carrier: &'static str,
    soft_prompt: Option<String>,
    user: Option<String>,
    query: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<Option<Offer>, ApiError> {
    let Some(id) = user else {
        return soft_prompt.map(|name| named_offer(users, carrier, name)).transpose();
    };
    let offer = user_offer(users, carrier, id.clone(), query, warnings);
    if offer.is_none() {
        warnings.push(format!("the persona's user `{id}` is not known here; its soft prompt is left out"));
    }
    Ok(offer)
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

/// Returning users: their prompts are in memory, so no other thread is asked. `None`: not all are.
fn at_hand(users: &Users, ids: &[(&'static str, String)]) -> Option<Softs> {
    let mut softs = Softs::default();
    for (carrier, id) in ids {
        let prompt = users.prompt_at_hand(id)?;
        softs.request.extend(offered(prompt, carrier, id.clone(), &mut softs.warnings));
    }
    Some(softs)
}

/// `None`: the server knows nobody of this name, and that is no error.
fn user_offer(
    users: &Users,
    carrier: &'static str,
    id: String,
    query: Option<&str>,
    warnings: &mut Vec<String>,
) -> Option<Offer> {
    offered(users.prompt_for(&id, query), carrier, id, warnings)
}

fn offered(
    prompt: UserPrompt,
    carrier: &'static str,
    id: String,
    warnings: &mut Vec<String>,
) -> Option<Offer> {
    let rows = match prompt {
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

fn digest_of(context: &Context, spec: &PersonaSpec, edits: Digest, own: Option<&Offer>) -> Digest {
    let soft = match own.map(|offer| (&offer.source, &offer.rows)) {
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
        card: spec.card.as_deref(),
    })
}

/// The digest of a persona that is about to be stored: its plan is compiled, its soft prompt looked up; whatever is
/// wrong with it is refused here.
pub async fn digest_checked(context: &Context, spec: &PersonaSpec) -> Result<Digest, ApiError> {
    let applied = plan(context, &spec.steering).await?;
    let own = own_offer(context, spec).await?;
    Ok(digest_of(context, spec, applied.edits.digest(), own.as_ref()))
}

/// The digest of a stored persona as it is now, or why there is none: a vector of its plan is gone or not made yet.
pub async fn digest_now(context: &Context, spec: &PersonaSpec) -> Result<Digest, ApiError> {
    let library = context.library.clone();
    let steering = spec.steering.clone();
    let applied = blocking(move || library.plan_now(&steering))
        .await?
        .ok_or_else(|| ApiError::new(ErrorCode::VectorNotReady, "a vector of its plan is not made yet"))?;
    let own = own_offer(context, spec).await?;
    Ok(digest_of(context, spec, applied.edits.digest(), own.as_ref()))
}

/// A stored persona as the probe takes it: plan compiled, soft prompt looked up. Waits for vectors as a request does.
pub async fn probe_subject(context: &Context, persona: &Persona) -> Result<Subject, ApiError> {
    let spec = &persona.spec;
    let applied = plan(context, &spec.steering).await?;
    let own = own_offer(context, spec).await?;
    let digest = digest_of(context, spec, applied.edits.digest(), own.as_ref());
    let soft = match own {
        None => Soft::None,
        Some(Offer { rows: None, .. }) => {
            let message = "the soft prompt of the persona's user is not made yet; try again in a moment";
            return Err(ApiError::at(ErrorCode::EncoderNotReady, "persona", message).retry_after(2));
        }
        Some(Offer { source: Source::User(id), .. }) => Soft::User { users: context.users.clone(), id },
        Some(Offer { rows: Some(found), .. }) => Soft::Rows { rows: found.rows, label: found.label },
    };
    let (name, version) = (persona.name.clone(), persona.version);
    let (system, card, edits) = (spec.system.clone(), spec.card.clone(), applied.edits);
    Ok(Subject { persona: name, version, digest, system, card, edits, soft })
}

async fn own_offer(context: &Context, spec: &PersonaSpec) -> Result<Option<Offer>, ApiError> {
    if spec.soft_prompt.is_none() && spec.user.is_none() {
        return Ok(None);
    }
    let (users, soft_prompt, user) = (context.users.clone(), spec.soft_prompt.clone(), spec.user.clone());
    // What is missing is said where the persona is used.
    blocking(move || persona_offer(&users, "soft_prompt", soft_prompt, user, None, &mut Vec::new())).await
}

/// Whether a request's sampling may fall back on a persona's.
pub fn defaults(named: &Named) -> &SamplingDefaults {
    static NONE: std::sync::LazyLock<SamplingDefaults> = std::sync::LazyLock::new(SamplingDefaults::default);
    named.persona.as_ref().map_or(&NONE, |persona| &persona.spec.sampling)
}
