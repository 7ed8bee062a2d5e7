//! People as numbers: token ids of prompts, embeddings of texts, what a history pools to.

use super::{Materials, TrainError, TrainOptions};
use crate::digest::Digest;
use crate::encoder::Encoder;
use crate::limits;
use crate::model::TokenId;
use crate::statistics::Draws;
use crate::text::{ChatOptions, Message, Role, Specials, Text};
use crate::users::people::{People, Person, Question, Reply, Split, Targets};
use crate::users::projector::{Form, Parts, WeightedEmbedding, evidence};
use std::collections::BTreeMap;

/// Embeddings of all texts of some people.
#[derive(Clone, Debug)]
pub struct Embeddings {
    pub width: usize,
    /// Digest and name of the encoder.
    pub encoder: Digest,
    pub name: String,
    by_text: BTreeMap<String, Vec<f32>>,
}

impl Embeddings {
    /// Embeds every history text, and what an input-aware form asks with.
    pub fn of(encoder: &Encoder, people: &People) -> Result<Embeddings, TrainError> {
        let (name, digest) = (encoder.name().to_owned(), encoder.digest());
        Embeddings::with(people, encoder.width(), digest, &name, |text| {
            let embedded = encoder.embed(&[text]).map_err(|error| TrainError::Encoder(error.to_string()))?;
            embedded.into_iter().next().ok_or_else(|| TrainError::Encoder("no embedding came back".into()))
        })
    }

    /// The same with any function that embeds.
    pub fn with(
        people: &People,
        width: usize,
        encoder: Digest,
        name: &str,
        embed: impl Fn(&str) -> Result<Vec<f32>, TrainError>,
    ) -> Result<Embeddings, TrainError> {
        let mut by_text = BTreeMap::new();
        for person in &people.people {
            let history = person.history.iter().map(|item| item.text.as_str());
            let queries: Vec<&str> = match &person.targets {
                Targets::Questions(questions) => questions.iter().map(|one| one.prompt.as_str()).collect(),
                Targets::Replies(replies) => replies.iter().map(query_of).collect(),
            };
            for text in history.chain(queries) {
                if !by_text.contains_key(text) {
                    by_text.insert(text.to_owned(), embed(text)?);
                }
            }
        }
        Ok(Embeddings { width, encoder, name: name.to_owned(), by_text })
    }

    pub fn len(&self) -> usize {
        self.by_text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_text.is_empty()
    }

    pub fn get(&self, text: &str) -> Result<&[f32], TrainError> {
        let embedding = self.by_text.get(text).map(Vec::as_slice);
        embedding.ok_or_else(|| TrainError::Data("a text has no embedding".into()))
    }
}

/// What an input-aware prompt is made for: the last message.
fn query_of(reply: &Reply) -> &str {
    reply.messages.last().map_or("", |message| message.content.as_str())
}

/// A sequence without its soft rows.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub ids: Vec<TokenId>,
    /// Soft rows stand before this token.
    pub soft_at: usize,
    /// Text that an input-aware prompt asks with.
    pub query: String,
}

#[derive(Clone, Debug)]
pub enum Target {
    /// Index of the question in [`Prepared::questions`] and the person's answer.
    Answer { question: usize, answer: f64 },
    /// Tokens from `reply_from` on are the reply.
    Reply { sequence: Sequence, reply_from: usize, item: Option<String> },
}

#[derive(Clone, Debug)]
pub struct PreparedQuestion {
    pub item: String,
    pub sequence: Sequence,
    /// Two next tokens; their log-odds answer.
    pub choices: [TokenId; 2],
    /// Mean answer of the training people.
    pub mean: f64,
}

#[derive(Clone, Debug)]
pub struct History {
    /// `[n][e]`
    pub embeddings: Vec<Vec<f32>>,
    pub weights: Vec<f32>,
    pub items: Vec<Option<String>>,
}

#[derive(Clone, Debug)]
pub struct PreparedPerson {
    pub history: History,
    pub targets: Vec<Target>,
}

/// All that training reads.
pub struct Prepared {
    pub train: Vec<PreparedPerson>,
    pub stop: Vec<PreparedPerson>,
    /// Where targets are replies: people for a last look when all is decided.
    pub test: Vec<PreparedPerson>,
    /// Empty where targets are replies.
    pub questions: Vec<PreparedQuestion>,
    /// Shape, statistics and labels of the projector to be; its tensors are filled in later.
    pub parts: Parts,
}

impl Prepared {
    pub fn new(materials: &Materials<'_>, options: &TrainOptions) -> Result<Prepared, TrainError> {
        check_options(options)?;
        let (people, text) = (materials.people, materials.text);
        let questions = questions(people, text)?;
        let index: BTreeMap<&str, usize> =
            questions.iter().enumerate().map(|(i, question)| (question.item.as_str(), i)).collect();
        let prepare = |split| {
            let person = |person: &Person| prepare_person(person, materials, &index);
            people.of(split).map(person).collect::<Result<Vec<_>, TrainError>>()
        };
        let (train, stop) = (prepare(Split::Train)?, prepare(Split::Stop)?);
        let test = if questions.is_empty() { prepare(Split::Test)? } else { Vec::new() };
        if stop.is_empty() {
            let message = "no person has `\"split\":\"stop\"`; some are needed to choose when to stop";
            return Err(TrainError::Data(message.into()));
        }
        drop(index);
        let mut parts = empty_parts(materials, options);
        measure(&mut parts, &train, &questions, materials.embeddings)?;
        Ok(Prepared { train, stop, test, questions, parts })
    }

    /// Training people of a step and targets of each.
    pub fn draw(&self, options: &TrainOptions, draws: &mut Draws) -> Vec<(&PreparedPerson, &Target)> {
        let mut drawn = Vec::new();
        for person in draws.sample(self.train.len(), options.people_per_step) {
            let person = &self.train[person];
            let targets = draws.sample(person.targets.len(), options.targets_per_person);
            drawn.extend(targets.into_iter().map(|target| (person, &person.targets[target])));
        }
        drawn
    }

    /// Tokens of all prompts, for a start in places that the model knows.
    pub fn prompt_tokens(&self) -> Vec<TokenId> {
        let questions = self.questions.iter().map(|question| &question.sequence);
        let replies =
            self.train.iter().flat_map(|person| &person.targets).filter_map(|target| match target {
                Target::Reply { sequence, .. } => Some(sequence),
                Target::Answer { .. } => None,
            });
        questions.chain(replies).flat_map(|sequence| sequence.ids.iter().copied()).collect()
    }
}

fn check_options(options: &TrainOptions) -> Result<(), TrainError> {
    let allowed = |name: &str, given: usize, low: usize, high: usize| match (low..=high).contains(&given) {
        true => Ok(()),
        false => Err(TrainError::Options(format!("`{name}` is {given}; allowed: {low} to {high}"))),
    };
    allowed("k", options.k, 1, limits::SOFT_ROWS_MAX)?;
    allowed("hidden", options.hidden.unwrap_or(1), 1, limits::PROJECTOR_HIDDEN_MAX)?;
    allowed("evaluate_every", options.evaluate_every, 1, 1_000_000)?;
    allowed("people_per_step", options.people_per_step, 1, 1024)?;
    allowed("targets_per_person", options.targets_per_person, 1, 1024)?;
    allowed("held_out_targets", options.held_out_targets, 1, 4096)
}

/// Distinct questions in the order in which they first occur, with the mean answer of the training people.
fn questions(people: &People, text: &Text) -> Result<Vec<PreparedQuestion>, TrainError> {
    let mut found: Vec<&Question> = Vec::new();
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    for person in people.people.iter().filter(|person| person.split != Split::Test) {
        let Targets::Questions(questions) = &person.targets else { return Ok(Vec::new()) };
        for question in questions {
            let known = *index.entry(&question.item).or_insert_with(|| {
                found.push(question);
                found.len() - 1
            });
            if found[known].prompt != question.prompt || found[known].choices != question.choices {
                let item = &question.item;
                return Err(TrainError::Data(format!("item `{item}` has two different questions")));
            }
            if person.split == Split::Train {
                let (sum, n) = sums.entry(&question.item).or_default();
                (*sum, *n) = (*sum + f64::from(question.answer), *n + 1.0);
            }
        }
    }
    if found.len() > limits::PEOPLE_ITEMS_MAX {
        let (given, max) = (found.len(), limits::PEOPLE_ITEMS_MAX);
        return Err(TrainError::Data(format!("{given} different questions; at most {max}")));
    }
    let all = sums.values().fold((0.0, 0.0), |(sum, n), (s, m)| (sum + s, n + m));
    let prepare = |question: &Question| {
        let ids = text.complete(&question.prompt)?;
        let choice = |i: usize| one_token(text, &question.choices[i]);
        let (sum, n) = sums.get(question.item.as_str()).copied().unwrap_or((all.0, all.1));
        Ok(PreparedQuestion {
            item: question.item.clone(),
            sequence: sequence(text, ids, &question.prompt)?,
            choices: [choice(0)?, choice(1)?],
            mean: sum / n.max(1.0),
        })
    };
    found.into_iter().map(prepare).collect()
}

fn one_token(text: &Text, choice: &str) -> Result<TokenId, TrainError> {
    let ids = text.tokenizer.encode(choice, Specials::AsText)?;
    match ids[..] {
        [id] => Ok(id),
        _ => {
            let n = ids.len();
            Err(TrainError::Data(format!("choice `{choice}` is {n} tokens; a choice is one token")))
        }
    }
}

fn sequence(text: &Text, ids: Vec<TokenId>, query: &str) -> Result<Sequence, TrainError> {
    if ids.is_empty() || ids.len() > limits::TRAINING_TOKENS_MAX {
        let (given, max) = (ids.len(), limits::TRAINING_TOKENS_MAX);
        return Err(TrainError::Data(format!("a target takes {given} tokens; allowed: 1 to {max}")));
    }
    let begins = text.begin_token().is_some_and(|begin| ids.first() == Some(&begin));
    Ok(Sequence { ids, soft_at: usize::from(begins), query: query.to_owned() })
}

fn prepare_person(
    person: &Person,
    materials: &Materials<'_>,
    index: &BTreeMap<&str, usize>,
) -> Result<PreparedPerson, TrainError> {
    let embeddings = materials.embeddings;
    let history = History {
        embeddings: (person.history.iter())
            .map(|item| embeddings.get(&item.text).map(<[f32]>::to_vec))
            .collect::<Result<_, _>>()?,
        weights: person.history.iter().map(|item| item.weight).collect(),
        items: person.history.iter().map(|item| item.item.clone()).collect(),
    };
    let targets = match &person.targets {
        Targets::Questions(questions) => (questions.iter())
            .filter_map(|question| {
                let question_index = *index.get(question.item.as_str())?;
                Some(Target::Answer { question: question_index, answer: f64::from(question.answer) })
            })
            .collect(),
        Targets::Replies(replies) => {
            replies.iter().map(|reply| reply_target(reply, materials.text)).collect::<Result<_, _>>()?
        }
    };
    Ok(PreparedPerson { history, targets })
}

/// The chat as it is served up to the reply, then the reply and, unless it goes on, the token that ends it.
fn reply_target(reply: &Reply, text: &Text) -> Result<Target, TrainError> {
    let message = |message: &crate::users::people::ReplyMessage| match Role::parse(&message.role) {
        Some(role) => Ok(Message::new(role, &message.content)),
        None => {
            let role = &message.role;
            Err(TrainError::Data(format!("role `{role}`; allowed: system, user, assistant, tool")))
        }
    };
    let messages = reply.messages.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let mut ids = text.chat(&messages, &ChatOptions::default())?.ids;
    let reply_from = ids.len();
    ids.extend(text.tokenizer.encode(&reply.reply, Specials::AsText)?);
    if !reply.open {
        ids.extend(text.tokenizer.stop_tokens().first());
    }
    let sequence = sequence(text, ids, query_of(reply))?;
    Ok(Target::Reply { sequence, reply_from, item: reply.item.clone() })
}

impl History {
    /// The items without one, in order; `None` where nothing is left out.
    pub fn without(&self, left_out: Option<&str>) -> Vec<usize> {
        let kept = |i: &usize| left_out.is_none() || self.items[*i].as_deref() != left_out;
        (0..self.weights.len()).filter(kept).collect()
    }

    /// The items that stand before a target: all but its own one, `item`. `draws` also takes a random part of them where
    /// that is asked.
    pub fn kept(&self, item: Option<&str>, options: &TrainOptions, draws: Option<&mut Draws>) -> Vec<usize> {
        let kept = self.without(item);
        match draws {
            Some(draws) if options.sample_history => part_of(kept, options.n_min, draws),
            _ => kept,
        }
    }

    pub fn items(&self, kept: &[usize]) -> Vec<WeightedEmbedding<'_>> {
        kept.iter()
            .map(|&i| WeightedEmbedding { embedding: &self.embeddings[i], weight: self.weights[i] })
            .collect()
    }
}

/// Indices of the items that a draw keeps: at least `n_min` where there are so many, in order.
fn part_of(kept: Vec<usize>, n_min: f32, draws: &mut Draws) -> Vec<usize> {
    let low = (n_min.ceil() as usize).clamp(1, kept.len().max(1));
    if kept.len() <= low {
        return kept;
    }
    let count = low + draws.below(kept.len() - low + 1);
    let mut chosen: Vec<usize> = draws.sample(kept.len(), count).into_iter().map(|i| kept[i]).collect();
    chosen.sort_unstable();
    chosen
}

fn empty_parts(materials: &Materials<'_>, options: &TrainOptions) -> Parts {
    let e = materials.embeddings.width;
    let identity = |i: usize| if i / e == i % e { 1.0 } else { 0.0 };
    Parts {
        form: options.form,
        k: options.k,
        d_model: materials.model.config().d_model,
        e,
        constant: Vec::new(),
        centre: vec![0.0; options.form.input_width(e)],
        scale: 1.0,
        layers: Vec::new(),
        query: match options.form {
            Form::Static => Vec::new(),
            Form::InputAware => (0..e * e).map(identity).collect(),
        },
        temperature: TEMPERATURE,
        static_mean: vec![0.0; e],
        variance_between: 0.0,
        variance_within: 0.0,
        n0: options.n0,
        n_min: options.n_min,
        cap: options.cap,
        weights: materials.weights,
        encoder: materials.embeddings.encoder,
        encoder_name: materials.embeddings.name.clone(),
        data: materials.people.digest,
        recipe: String::new(),
    }
}

/// Cosines of related sentences differ by tenths: at this temperature the nearest few items of a history count.
const TEMPERATURE: f32 = 0.1;

/// Means, variances and the scale over the training people.
fn measure(
    parts: &mut Parts,
    train: &[PreparedPerson],
    questions: &[PreparedQuestion],
    embeddings: &Embeddings,
) -> Result<(), TrainError> {
    let mut pooled = Vec::new();
    let mut within = (0.0, 0.0);
    for person in train {
        let items = person.history.items(&person.history.without(None));
        let n = evidence(&items);
        if n <= 0.0 {
            continue;
        }
        let vector = parts.pool_static(&items);
        for item in &items {
            let sign = item.weight.signum();
            let own = item.embedding.iter().map(|value| value * sign);
            let squares: f32 = own.zip(&vector).map(|(value, mean)| (value - mean).powi(2)).sum();
            within = (within.0 + item.weight.abs() * squares, within.1 + item.weight.abs());
        }
        pooled.push(vector);
    }
    if pooled.is_empty() {
        return Err(TrainError::Data("no training person has a history with a weight other than 0".into()));
    }
    parts.static_mean = mean_of(&pooled);
    parts.variance_between = mean_square(&pooled, &parts.static_mean);
    parts.variance_within = within.0 / within.1;
    if parts.form == Form::InputAware {
        pooled.clear();
        for person in train {
            let items = person.history.items(&person.history.without(None));
            // A dozen requests a person tell the mean well enough.
            let every = (person.targets.len() / 12).max(1);
            for target in person.targets.iter().step_by(every) {
                let query = match target {
                    Target::Answer { question, .. } => &questions[*question].sequence.query,
                    Target::Reply { sequence, .. } => &sequence.query,
                };
                pooled.push(parts.pool_attended(&items, embeddings.get(query)?));
            }
        }
        parts.centre = mean_of(&pooled);
    } else {
        parts.centre = parts.static_mean.clone();
    }
    let spread = mean_square(&pooled, &parts.centre);
    if spread <= 1e-12 {
        return Err(TrainError::Data("all training people have the same history".into()));
    }
    parts.scale = 1.0 / spread.sqrt();
    Ok(())
}

fn mean_of(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut mean = vec![0.0; vectors[0].len()];
    for vector in vectors {
        mean.iter_mut().zip(vector).for_each(|(mean, value)| *mean += value / vectors.len() as f32);
    }
    mean
}

fn mean_square(vectors: &[Vec<f32>], mean: &[f32]) -> f32 {
    let squares = |vector: &Vec<f32>| vector.iter().zip(mean).map(|(x, m)| (x - m).powi(2)).sum::<f32>();
    vectors.iter().map(squares).sum::<f32>() / vectors.len() as f32
}
