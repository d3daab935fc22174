//! HTTP services that rows ask: `http_lookup('http://host:port/path', key)` is the body of GET /path/key.
//!
//! ```text
//! key ─► cache ─ not there ─► GET, `tries` at most ─► 2xx: the body   404, 410: NULL   other 4xx: the row is a dead letter
//!                                                 └─► no answer, 5xx, 408, 429: the pipeline fails, and takes the rows again after a while
//! ```
//!
//! A service that fails again and again is not asked for a while (its circuit is *open*); then one question tries it. No row is given up for it. What is answered while
//! others are not stays in the cache, so that a service that answers some questions gets through any number of them.
//!
//! To a machine it is one more thing to ask, beside tables: what it said is kept with the arrival.

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a server of the tests' own, on its own thread")]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StringViewArray, UInt32Array},
    compute::{take, take_record_batch},
    datatypes::{DataType as ArrowType, Field, Schema},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidemill_storage::clock::Clock;

use super::{
    expression::Uncomputed,
    plan::Ask,
    tables::{Asking, TableRows},
};
use crate::{
    Error, Result,
    decode::parse_json,
    http::{Address, Answer, Client, Manner, Persistence, escaped},
};

/// Longest answer: what of a batch of rows is kept is bounded by it.
const BODY_BYTES_MAX: usize = 256 << 10;
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Questions in a row that got no answer open the circuit, for so long.
const FAILURES_MAX: u32 = 3;
const OPEN_FOR_US: i64 = 5_000_000;
/// What an entry of the cache takes beside key and answer, about.
const ENTRY_BYTES: usize = 128;

/// How a pipeline asks services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceOptions {
    /// How long one request may take (microseconds).
    pub timeout_us: i64,
    /// How often a question is asked before the pipeline fails.
    pub tries: u32,
    /// How long an answer is taken for true (microseconds); zero: answers are not kept.
    pub cache_ttl_us: i64,
    /// Of the answers that are kept, for each service.
    pub cache_bytes: u64,
    /// Requests beside each other, to each service.
    pub concurrency: u32,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self { timeout_us: 5_000_000, tries: 3, cache_ttl_us: 60_000_000, cache_bytes: 64 << 20, concurrency: 16 }
    }
}

/// What a service said of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// A document, as it is kept.
    Body(Arc<str>),
    Nothing,
    Refused(Arc<str>),
}

/// See the module.
pub(crate) struct HttpService {
    address: Address,
    options: ServiceOptions,
    clock: Arc<dyn Clock>,
    /// Whether to give up at once.
    gives_up: Box<dyn Fn() -> bool + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    client: Client,
    cache: Cache,
    circuit: Circuit,
}

/// Answers, the oldest first.
#[derive(Default)]
struct Cache {
    /// What was said, and when.
    said: HashMap<Arc<str>, (Said, i64)>,
    order: VecDeque<(Arc<str>, i64)>,
    bytes: usize,
}

/// Whether a service is asked at all.
#[derive(Debug, Default)]
struct Circuit {
    failures: u32,
    /// Until when it is not asked (monotonic).
    open_until_us: Option<i64>,
    reason: String,
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpService({})", self.address)
    }
}

impl HttpService {
    pub(crate) fn new(
        address: Address,
        options: ServiceOptions,
        clock: Arc<dyn Clock>,
        gives_up: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        let manner = Manner {
            accept: "application/json, */*;q=0.1",
            body_bytes_max: BODY_BYTES_MAX,
            timeout: Duration::from_micros(options.timeout_us.max(0) as u64),
        };
        let client = Client::new(address.clone(), manner).map_err(Error::Unavailable)?;
        let state = State { client, cache: Cache::default(), circuit: Circuit::default() };
        Ok(Self { address, options, clock, gives_up: Box::new(gives_up), state: Mutex::new(state) })
    }

    /// What it says of each key.
    fn ask(&self, keys: &StringViewArray) -> Result<Vec<Said>> {
        let State { client, cache, circuit } = &mut *self.state.lock();
        let now_us = self.clock.monotonic_us();
        cache.forget_before(now_us.saturating_sub(self.options.cache_ttl_us));
        let mut said: Vec<Option<Said>> =
            keys.iter().map(|key| cache.said.get(key.unwrap_or_default()).map(|(said, _)| said.clone())).collect();
        let mut missing: Vec<usize> = (0..said.len()).filter(|at| said[*at].is_none()).collect();
        if missing.is_empty() {
            return Ok(said.into_iter().flatten().collect());
        }
        if circuit.open_until_us.is_some_and(|until_us| now_us < until_us) {
            let reason = format!("{}; it is not asked for {} s", circuit.reason, OPEN_FOR_US / 1_000_000);
            return Err(self.unavailable(&reason));
        }
        // One question tries a service that failed; the others follow when it answers.
        let is_trial = circuit.open_until_us.is_some();
        let trial = if is_trial { missing.drain(..1).collect() } else { Vec::new() };
        for (asked, tries) in [(trial, 1), (missing, self.options.tries)] {
            if asked.is_empty() {
                continue;
            }
            let path = |at: &usize| format!("{}/{}", self.address.prefix, escaped(keys.value(*at)));
            let paths: Vec<String> = asked.iter().map(path).collect();
            let persistence = Persistence { tries, pause: PAUSE, pause_max: PAUSE_MAX, is_failure };
            let (mut failed, mut unanswered) = (None, asked.len());
            client.get_all(&paths, self.options.concurrency as usize, persistence, &*self.gives_up, |at, answer| {
                match meaning(answer) {
                    Ok(one) => {
                        unanswered -= 1;
                        if self.options.cache_ttl_us > 0 {
                            cache.keep(keys.value(asked[at]), one.clone(), self.clock.monotonic_us());
                        }
                        said[asked[at]] = Some(one);
                    }
                    Err(reason) => failed = Some(reason),
                }
            });
            cache.shrink(self.options.cache_bytes as usize);
            if let Some(reason) = failed {
                circuit.fail(&reason, self.clock.monotonic_us());
                return Err(self.unavailable(&reason));
            }
            if unanswered > 0 {
                return Err(self.unavailable("it was not waited for"));
            }
            *circuit = Circuit::default();
        }
        Ok(said.into_iter().map(|said| said.unwrap_or(Said::Nothing)).collect())
    }

    fn unavailable(&self, what: &str) -> Error {
        Error::Unavailable(format!("service {}: {what}", self.address))
    }
}

impl Cache {
    fn keep(&mut self, key: &str, said: Said, at_us: i64) {
        let key: Arc<str> = key.into();
        self.bytes += weight(&key, &said);
        self.order.push_back((Arc::clone(&key), at_us));
        if let Some((before, _)) = self.said.insert(Arc::clone(&key), (said, at_us)) {
            self.bytes -= weight(&key, &before);
        }
    }

    fn forget_before(&mut self, us: i64) {
        while self.order.front().is_some_and(|(_, at_us)| *at_us <= us) {
            self.forget_first();
        }
    }

    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && !self.order.is_empty() {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((key, at_us)) = self.order.pop_front() else { return };
        // It may have been kept again since.
        if self.said.get(&key).is_some_and(|(_, known_us)| *known_us == at_us)
            && let Some((said, _)) = self.said.remove(&key)
        {
            self.bytes -= weight(&key, &said);
        }
    }
}

fn weight(key: &str, said: &Said) -> usize {
    let of_answer = match said {
        Said::Body(text) | Said::Refused(text) => text.len(),
        Said::Nothing => 0,
    };
    ENTRY_BYTES + key.len() + of_answer
}

impl Circuit {
    fn fail(&mut self, reason: &str, now_us: i64) {
        self.failures += 1;
        self.reason = reason.to_owned();
        if self.failures >= FAILURES_MAX {
            self.open_until_us = Some(now_us + OPEN_FOR_US);
        }
    }
}

/// Whether a request is to be made again.
fn is_failure(answer: &Answer) -> bool {
    match answer {
        Ok((status, _)) => !matches!(status, 200..=299 | 400..=499) || matches!(status, 408 | 425 | 429),
        Err(_) => true,
    }
}

/// What an answer says; `Err`: nothing about the key.
fn meaning(answer: Answer) -> Result<Said, String> {
    if is_failure(&answer) {
        return Err(answer.map_or_else(|reason| reason, |(status, _)| format!("it answers with status {status}")));
    }
    let refused = |reason: String| Ok(Said::Refused(reason.into()));
    let (status, body) = answer?;
    if matches!(status, 404 | 410 | 204) {
        return Ok(Said::Nothing);
    }
    if !(200..300).contains(&status) {
        return refused(format!("with status {status}"));
    }
    let Some(body) = body else { return refused(format!("with more than {} kB", BODY_BYTES_MAX >> 10)) };
    let mut document = String::new();
    match std::str::from_utf8(&body).map_err(|error| error.to_string()).and_then(|text| parse_json(text, &mut document))
    {
        Ok(()) => Ok(Said::Body(document.into())),
        Err(reason) => refused(format!("with what is no JSON: {reason}")),
    }
}

/// As a table with a row for each key: the document, and why there can be none.
impl TableRows for HttpService {
    fn rows_of(&self, _: &[usize], keys: &[ArrayRef], _: &[usize]) -> Result<RecordBatch> {
        let keys = keys.first().and_then(|keys| keys.as_string_view_opt());
        let keys = keys.ok_or_else(|| self.unavailable("a key is a text"))?;
        let said = self.ask(keys)?;
        let bodies: StringViewArray =
            said.iter().map(|said| if let Said::Body(body) = said { Some(&**body) } else { None }).collect();
        let refusals: StringArray = said
            .iter()
            .map(|said| match said {
                Said::Refused(reason) => Some(format!("service {} answers {reason}", self.address)),
                _ => None,
            })
            .collect();
        let fields = vec![
            Field::new("key", ArrowType::UInt32, false),
            Field::new("body", ArrowType::Utf8View, true),
            Field::new("refusal", ArrowType::Utf8, true),
        ];
        let numbers = UInt32Array::from_iter_values(0..keys.len() as u32);
        let columns: Vec<ArrayRef> = vec![Arc::new(numbers), Arc::new(bodies), Arc::new(refusals)];
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

/// Rows with what a service said of each.
pub(crate) struct Asked {
    pub(crate) rows: RecordBatch,
    /// Which of the rows before each of them is.
    pub(crate) of: UInt32Array,
    /// Rows before that were refused, and why.
    pub(crate) refused: Vec<(u32, String)>,
}

impl Ask {
    /// Each key is asked for once; a NULL is not.
    pub(crate) fn run(&self, rows: &RecordBatch, asking: &mut Asking) -> Result<Asked, Uncomputed> {
        let text = |error: arrow::error::ArrowError| error.to_string();
        let keys = self.key.compute(rows)?;
        let keys = keys.as_string_view_opt().ok_or("the key is no text")?;
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut distinct: Vec<&str> = Vec::new();
        let mut number_of = |key| {
            *numbers.entry(key).or_insert_with(|| {
                distinct.push(key);
                (distinct.len() - 1) as u32
            })
        };
        let of_key: UInt32Array = keys.iter().map(|key| key.map(&mut number_of)).collect();
        let mut of: Vec<u32> = (0..rows.num_rows() as u32).collect();
        let mut refused = Vec::new();
        let answers = match distinct.is_empty() {
            true => arrow::array::new_null_array(&ArrowType::Utf8View, rows.num_rows()),
            false => {
                let distinct: ArrayRef = Arc::new(StringViewArray::from_iter_values(distinct));
                let said = asking.ask(self.place, &[0], &[distinct], &[1, 2])?;
                let refusals = said.column(2).as_string_opt::<i32>().ok_or("an answer without reasons")?;
                if refusals.null_count() < refusals.len() {
                    of.retain(|row| {
                        let key = of_key.is_valid(*row as usize).then(|| of_key.value(*row as usize) as usize);
                        let reason = key.filter(|key| refusals.is_valid(*key)).map(|key| refusals.value(key));
                        refused.extend(reason.map(|reason| (*row, reason.to_owned())));
                        reason.is_none()
                    });
                }
                take(said.column(1), &of_key, None).map_err(text)?
            }
        };
        let mut columns = rows.columns().to_vec();
        columns.push(answers);
        // Of lanes that are united each has types of its own.
        for (column, field) in columns.iter_mut().zip(self.output.fields()) {
            if column.data_type() != field.data_type() {
                *column = arrow::compute::cast(column, field.data_type()).map_err(text)?;
            }
        }
        let all = RecordBatch::try_new(Arc::clone(&self.output), columns).map_err(text)?;
        let of = UInt32Array::from(of);
        let rows = if refused.is_empty() { all } else { take_record_batch(&all, &of).map_err(text)? };
        Ok(Asked { rows, of, refused })
    }
}
