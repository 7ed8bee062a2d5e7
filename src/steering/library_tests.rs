//! The library with a stand-in for the model: what is made, when, how often, and what waits for it.

use super::*;
use crate::jobs::JobState;
use crate::model::Change;
use crate::steering::extraction::Progress;
use crate::steering::request::RequestRules;
use crate::steering::traits::tests::sample;
use crate::steering::vector::Provenance;
use crate::store::Store;
use crate::store::tests::Folder;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

const MODEL: ModelShape = ModelShape { n_blocks: 4, d_model: 2, weights: Digest([7; 32]) };
const LONG: Duration = Duration::from_secs(60);

/// What the next extraction does.
enum Order {
    Work,
    Fail,
    Panic,
}

/// A model that makes the vector (1, 0) at block 2, each time when ordered to.
struct Fake {
    orders: Receiver<Order>,
    extracted: Arc<AtomicUsize>,
}

impl Measures for Fake {
    fn norms(&self) -> Result<Norms, SteeringError> {
        Norms::new(vec![10.0; 4]).ok_or_else(|| SteeringError::Internal("norms".into()))
    }

    fn extract(
        &self,
        name: &str,
        contrasts: &[Contrast],
        _: &Norms,
        progress: Progress<'_>,
    ) -> Result<Vector, SteeringError> {
        self.extracted.fetch_add(1, Ordering::SeqCst);
        progress(1, "reply 1 of 6")?;
        match self.orders.recv() {
            Ok(Order::Work) => {}
            Ok(Order::Fail) => return Err(SteeringError::Internal("no luck".into())),
            Ok(Order::Panic) | Err(_) => panic!("on purpose"),
        }
        let mut vector = Vector::new(name, BTreeMap::from([(2, Arc::from([1.0f32, 0.0]))]), "p")?;
        vector.calibration = Some(Calibration { scale: 1.0, rise_plus: 0.05, rise_minus: 0.04 });
        let contrast = digest_of(contrasts);
        vector.provenance = Provenance {
            weights: Some(MODEL.weights),
            origin: Origin::Contrast { name: name.into(), form: FORM.into(), contrast },
        };
        Ok(vector)
    }

    fn calibrate(&self, _: &Vector, _: &Norms) -> Result<Calibration, SteeringError> {
        match self.orders.recv() {
            Ok(Order::Work) => Ok(Calibration { scale: 3.0, rise_plus: 0.05, rise_minus: 0.05 }),
            _ => Err(SteeringError::Internal("no luck".into())),
        }
    }
}

struct Bench {
    library: Library,
    orders: Sender<Order>,
    extracted: Arc<AtomicUsize>,
    store: Store,
    jobs: Jobs,
    /// Removed when the last bench over it is gone.
    folder: Arc<Folder>,
}

impl Bench {
    fn new(test: &str) -> Bench {
        let folder = Folder::new(test);
        let store = Store::open(&folder.0).unwrap();
        Bench::over(Arc::new(folder), store)
    }

    /// Another server over the same store.
    fn again(&self) -> Bench {
        Bench::over(self.folder.clone(), self.store.clone())
    }

    fn over(folder: Arc<Folder>, store: Store) -> Bench {
        let (orders, receiver) = channel();
        let extracted = Arc::new(AtomicUsize::new(0));
        let fake = Fake { orders: receiver, extracted: extracted.clone() };
        let traits = [("warm", "cold"), ("formal", "casual")]
            .map(|(name, opposite)| Trait::parse(&sample(name, opposite).to_string()).unwrap());
        let jobs = Jobs::open(store.clone()).unwrap();
        let options = LibraryOptions { store: &store, jobs: &jobs, max_dose: 1.0 };
        let library = Library::open(MODEL, "llama".into(), traits.into(), options, fake).unwrap();
        Bench { library, orders, extracted, store, jobs, folder }
    }

    async fn plan(&self, steering: Value, wait: Duration) -> Result<Applied, SteeringError> {
        let request =
            SteeringRequest::from_json(&steering, "steering", RequestRules { inline: true }).unwrap();
        self.library.plan(&request, wait).await
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    fn extracted(&self) -> usize {
        self.extracted.load(Ordering::SeqCst)
    }
}

/// The first value of each addition at block 2, in the order of the edits.
fn sizes(applied: &Applied) -> Vec<f32> {
    let mut sizes: Vec<f32> = applied.edits.blocks[2]
        .resid
        .iter()
        .map(|edit| match &edit.change {
            Change::Add { delta } => delta[0],
            Change::Project { .. } => f32::NAN,
        })
        .collect();
    sizes.sort_by(f32::total_cmp);
    sizes
}

#[tokio::test]
async fn both_poles_are_one_vector() {
    let bench = Bench::new("poles");
    bench.order(Order::Work);
    let applied = bench.plan(json!("0.5 warm + 2 cold - warm.cold - 3 cold.warm"), LONG).await.unwrap();
    assert_eq!(sizes(&applied), [-2.0, -1.0, 0.5, 3.0]);
    assert_eq!(applied.steering, json!("0.5 warm + 2 cold - warm.cold - 3 cold.warm"));
    let names: Vec<_> = applied.vectors.iter().map(|vector| (vector.name.as_str(), vector.unit)).collect();
    assert_eq!(names[1], ("cold", "calibrated"));
    assert_eq!(bench.extracted(), 1);
}

#[tokio::test]
async fn many_waiters_one_extraction() {
    let bench = Bench::new("waiters");
    bench.order(Order::Work);
    let (a, b, c) = tokio::join!(
        bench.plan(json!("warm"), LONG),
        bench.plan(json!("2 warm"), LONG),
        bench.plan(json!("cold"), LONG)
    );
    assert_eq!(
        (sizes(&a.unwrap()), sizes(&b.unwrap()), sizes(&c.unwrap())),
        (vec![1.0], vec![2.0], vec![-1.0])
    );
    assert_eq!(bench.extracted(), 1);
}

#[tokio::test]
async fn who_does_not_wait_is_told_to_come_back() {
    let bench = Bench::new("not-ready");
    let error = bench.plan(json!([{"vector": "warm"}]), Duration::ZERO).await.unwrap_err();
    let SteeringError::NotReady { param, name, retry_after, .. } = error else { panic!("{error}") };
    assert_eq!((param.as_str(), name.as_str()), ("steering[0]", "warm"));
    assert!(retry_after >= Duration::from_secs(1));
    bench.order(Order::Work);
    bench.plan(json!("warm"), LONG).await.unwrap();
    assert_eq!(bench.extracted(), 1, "it went on being made");
}

#[tokio::test]
async fn failures_are_told_and_tried_again() {
    let bench = Bench::new("failures");
    for (order, part) in [(Order::Fail, "no luck"), (Order::Panic, "defect")] {
        bench.order(order);
        let error = bench.plan(json!("warm"), LONG).await.unwrap_err();
        assert!(matches!(error, SteeringError::Failed { .. }) && error.to_string().contains(part), "{error}");
    }
    bench.order(Order::Work);
    bench.plan(json!("warm"), LONG).await.unwrap();
    assert_eq!(bench.extracted(), 3);
}

#[tokio::test]
async fn zero_checks_the_name_and_makes_nothing() {
    let bench = Bench::new("zero");
    for text in ["0 warm", "0 cold + 0 formal"] {
        let applied = bench.plan(json!(text), Duration::ZERO).await.unwrap();
        assert!(applied.edits.is_empty() && applied.steering == json!(text), "{applied:?}");
    }
    let error = bench.plan(json!("0 wram"), Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("nearest: `warm`"), "{error}");
    assert_eq!(bench.extracted(), 0);
}

#[tokio::test]
async fn what_is_made_is_kept_until_its_pairs_change() {
    let bench = Bench::new("kept");
    bench.order(Order::Work);
    let first = bench.plan(json!("warm"), LONG).await.unwrap();
    let again = bench.again();
    let second = again.plan(json!("warm"), Duration::ZERO).await.unwrap();
    assert_eq!((first.edits.digest(), again.extracted()), (second.edits.digest(), 0));

    let mut changed = sample("warm", "cold");
    changed["train"][0]["positive"] = json!("other words");
    let changed = Trait::parse(&changed.to_string()).unwrap();
    let store = Shared {
        promised: vec![Pairs::of(changed.training())],
        traits: vec![changed],
        model: MODEL,
        architecture: String::new(),
        max_dose: 1.0,
        store: Vectors::open(&bench.store, MODEL.weights),
        neutral: "",
        loaded: Mutex::default(),
        norms: Mutex::default(),
    };
    let located = store.locate("warm", "p").unwrap();
    assert_eq!(store.ready(&located).unwrap(), None);
}

const FILE: &[u8] = br#"{"directions": {"1": [0.5, 0.0], "2": [1.0, 0.0]}}"#;

#[tokio::test]
async fn uploads() {
    let bench = Bench::new("uploads");
    let library = &bench.library;
    let (info, assumed) = library.upload("mine", FILE.to_vec(), false, false).unwrap();
    assert_eq!((info.blocks.as_slice(), info.width, assumed.block_offset), (&[1, 2][..], 2, 0));
    assert_eq!(library.list().unwrap(), std::slice::from_ref(&info));
    let again = bench.again();
    assert_eq!(again.library.show("mine").unwrap(), info);

    for (name, replace, part) in [
        ("mine", false, "there is a vector `mine`"),
        ("warm", true, "name of a trait"),
        ("cold.warm", true, "name of a trait"),
        ("../x", true, "names match"),
    ] {
        let error = library.upload(name, FILE.to_vec(), replace, false).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
    let wide = br#"{"directions": {"1": [0.5, 0.0, 1.0]}}"#;
    let error = library.upload("wide", wide.to_vec(), false, false).unwrap_err().to_string();
    assert!(error.contains("3 values") && error.contains("width is 2"), "{error}");

    let applied = bench.plan(json!([{"vector": "mine", "unit": "raw", "blocks": [2]}]), LONG).await.unwrap();
    assert_eq!(sizes(&applied), [1.0]);
    library.delete("mine").unwrap();
    assert!(matches!(library.delete("mine"), Err(SteeringError::Unknown { .. })));
    assert!(matches!(bench.plan(json!("mine"), LONG).await, Err(SteeringError::Unknown { .. })));
}

#[tokio::test]
async fn an_upload_is_calibrated_on_first_use() {
    let bench = Bench::new("provisional");
    bench.library.upload("mine", FILE.to_vec(), false, false).unwrap();
    bench.order(Order::Fail);
    let provisional = bench.plan(json!("mine"), LONG).await.unwrap();
    assert_eq!(provisional.vectors[0].unit, "provisional");
    assert_eq!(sizes(&provisional), [1.0]);
    bench.order(Order::Work);
    let calibrated = bench.plan(json!("mine"), LONG).await.unwrap();
    assert_eq!((calibrated.vectors[0].unit, sizes(&calibrated)), ("calibrated", vec![3.0]));
    let again = bench.again();
    assert_eq!(again.library.show("mine").unwrap().calibration.map(|found| found.scale), Some(3.0));
}

#[tokio::test]
async fn pairs_become_a_vector() {
    let bench = Bench::new("pairs");
    let pair = |a: &str, b: &str| Contrast { prompt: None, positive: a.into(), negative: b.into() };
    let Pending { mut state, job } =
        bench.library.extract("mine", vec![pair("a", "b"), pair("c", "d")], false).unwrap();
    let job = job.unwrap();
    assert_eq!((job.kind.as_str(), job.total), ("extract", Some(4)));
    assert!(matches!(bench.plan(json!("mine"), Duration::ZERO).await, Err(SteeringError::NotReady { .. })));
    bench.order(Order::Work);
    assert_eq!(*state.wait_for(State::is_finished).await.unwrap(), State::Done);
    let job = bench.jobs.get(&job.id).unwrap().unwrap();
    assert_eq!((job.state, job.result), (JobState::Done, Some(json!({"vector": "mine"}))));
    assert_eq!(sizes(&bench.plan(json!("2 mine"), LONG).await.unwrap()), [2.0]);
    for pairs in [vec![pair("a", "b")], vec![pair("a", " "), pair("a", "b")], vec![pair("a", "b"); 513]] {
        assert!(matches!(bench.library.extract("x", pairs, false), Err(SteeringError::Range { .. })));
    }
}

#[tokio::test]
async fn a_cancelled_extraction_makes_nothing() {
    let bench = Bench::new("cancelled");
    // One is being made, the other waits.
    let first = bench.library.prepare("warm").unwrap().unwrap();
    let mut second = bench.library.prepare("formal").unwrap().unwrap();
    let id = second.job.unwrap().id;
    bench.jobs.cancel(&id).unwrap();
    bench.order(Order::Work);
    let state = second.state.wait_for(State::is_finished).await.unwrap().clone();
    assert!(matches!(&state, State::Failed(error) if error.to_string().contains("cancelled")), "{state:?}");
    assert_eq!(bench.jobs.get(&id).unwrap().unwrap().state, JobState::Cancelled);
    assert_eq!(bench.jobs.get(&first.job.unwrap().id).unwrap().unwrap().state, JobState::Done);
    assert!(bench.library.prepare("formal").unwrap().is_some(), "it is not there");
}

#[tokio::test]
async fn exports() {
    let bench = Bench::new("exports");
    assert!(matches!(bench.library.export("warm", Format::Json), Err(SteeringError::NotReady { .. })));
    bench.order(Order::Work);
    bench.plan(json!("warm"), LONG).await.unwrap();
    for (name, sign) in [("warm", 1.0), ("cold", -1.0)] {
        for format in Format::ALL {
            let file = bench.library.export(name, format).unwrap();
            let read = formats::read(file, name).unwrap();
            assert_eq!(read.vector.directions()[&2][0], sign, "{name} {format:?}");
        }
    }
    let other = ModelShape { weights: Digest([8; 32]), ..MODEL };
    let file = bench.library.export("warm", Format::Safetensors).unwrap();
    let read = formats::read(file, "warm").unwrap().vector;
    assert!(matches!(read.check_fits(&other, "file"), Err(SteeringError::OtherModel { .. })));
}

#[tokio::test]
async fn inline_directions_are_checked() {
    let bench = Bench::new("inline");
    let fits = json!([{"directions": {"2": [1, 0]}, "coefficient": 2, "unit": "raw"}]);
    assert_eq!(sizes(&bench.plan(fits, LONG).await.unwrap()), [2.0]);
    let wide = json!([{"directions": {"2": [1, 0, 0]}, "unit": "raw"}]);
    let error = bench.plan(wide, LONG).await.unwrap_err();
    assert_eq!(error.param(), Some("steering[0].directions"));
}
