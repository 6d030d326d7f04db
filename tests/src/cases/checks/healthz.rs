//! Rows about `/healthz` and `/livez` of the agent: timed events, then a question.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_userspace::model::desired::Family;
use lb_userspace::model::healthz::{AgentHealth, HealthReport, Page};
use lb_userspace::model::timestamp::Timestamp;
use serde_json::Value;

use super::moments::{duration, moment, moment_of, one_of};
use super::node::node;
use crate::cases::config;
use crate::cases::fields::{Fields, Wrong, equal};

/// How long changes may wait unless a row says otherwise: what kube-proxy's tests have.
const TIMEOUT: Duration = Duration::from_secs(10);
/// When it is.
const AT: [&str; 12] = [
    "at",
    "at_s",
    "t",
    "t_s",
    "time",
    "time_s",
    "now",
    "now_s",
    "ask_at",
    "ask_at_s",
    "query_at",
    "query_at_s",
];
/// How much later it is than before.
const LATER: [&str; 14] = [
    "advance",
    "advance_s",
    "after",
    "after_s",
    "step",
    "step_s",
    "wait",
    "wait_s",
    "sleep",
    "sleep_s",
    "elapsed",
    "elapsed_s",
    "passes",
    "passes_s",
];
const PAGE: [&str; 7] = ["path", "page", "url", "endpoint", "handler", "server", "probe"];
const LIMIT: [&str; 4] = ["timeout", "timeout_s", "health_timeout", "health_timeout_s"];
const CHANGE_CAME: [&str; 6] =
    ["queued", "queue", "queued_update", "queue_update", "update_queued", "pending"];
const KERNEL_HAS_IT: [&str; 6] = ["updated", "update", "synced", "sync", "done", "applied"];
const FAMILIES: [&str; 3] = ["family", "families", "ip_family"];

/// The agent over the rows of a file. A row goes on where the one before ended, unless it begins earlier: then it tells
/// its story from the start.
pub(in crate::cases) struct Timeline {
    page: Option<Page>,
    health: AgentHealth,
    timeout: Duration,
    now: Duration,
}

impl Timeline {
    /// `about` may name the page: the name of the file, and the test that its facts come from.
    pub(in crate::cases) fn new(about: &str) -> Self {
        let about = about.to_lowercase();
        let page = match (about.contains("healthz"), about.contains("livez")) {
            (true, false) => Some(Page::Healthz),
            (false, true) => Some(Page::Livez),
            _ => None,
        };
        Self { page, health: AgentHealth::new(TIMEOUT), timeout: TIMEOUT, now: Duration::ZERO }
    }

    pub(in crate::cases) fn is_one(fields: &Fields) -> bool {
        let asks = ["events", "node", "expect", "expect_healthz", "expect_livez"];
        let is_told = asks.into_iter().chain(AT).chain(LATER).any(|key| fields.has(key));
        is_told && !["objects", "probes", "checks"].into_iter().any(|key| fields.has(key))
    }

    fn restart(&mut self) {
        self.health = AgentHealth::new(self.timeout);
        self.now = Duration::ZERO;
    }

    pub(in crate::cases) fn row(&mut self, mut fields: Fields) -> Result<(), Wrong> {
        if let Some(limit) = moment_of(&mut fields, &LIMIT)? {
            self.timeout = duration(limit)?;
            self.restart();
        }
        let about = fields.text("name")?.unwrap_or_default().to_lowercase();
        let page = match one_of(&mut fields, &PAGE)? {
            Some(Value::String(text)) => Some(page(&text)?),
            Some(other) => return Err(format!("{other} is no page")),
            None => self.page.or_else(|| about.contains("livez").then_some(Page::Livez)),
        };
        let page = page.unwrap_or(Page::Healthz);
        let asked_at = moment_of(&mut fields, &AT)?.map(duration).transpose()?;
        let later = moment_of(&mut fields, &LATER)?.map(duration).transpose()?;
        let events = fields.list("events")?;
        let first = events.iter().find_map(|event| time_of(event).transpose()).transpose()?;
        let begins = first.map(duration).transpose()?.or(asked_at);
        if begins.is_some_and(|begins| begins < self.now) {
            self.restart();
        }
        for value in events {
            self.event(value, page)?;
        }
        if fields.has("node") {
            let known = node(fields.take("node"))?;
            self.health.set_node(known.as_ref());
        }
        self.pass_to(asked_at)?;
        self.now += later.unwrap_or_default();
        for (key, page) in
            [("expect", page), ("expect_healthz", Page::Healthz), ("expect_livez", Page::Livez)]
        {
            if fields.has(key) {
                self.expect(fields.take(key), page)?;
            }
        }
        fields.finish()
    }

    fn pass_to(&mut self, time: Option<Duration>) -> Result<(), Wrong> {
        let Some(time) = time else { return Ok(()) };
        if time < self.now {
            return Err(format!("{time:?} is earlier than {:?}", self.now));
        }
        self.now = time;
        Ok(())
    }

    /// `{at: 25, event: queued, family: IPv4}`, `{at: 25, queued: [IPv4, IPv6]}`, `{advance_s: 25}`, `[25, queued, IPv4]`,
    /// `queued IPv4`.
    fn event(&mut self, value: Value, page: Page) -> Result<(), Wrong> {
        let words = match value {
            Value::String(text) => {
                text.split_whitespace().map(|word| Value::String(word.to_owned())).collect()
            }
            Value::Array(items) => items,
            value => return self.event_fields(Fields::of(value)?, page),
        };
        let mut event = serde_json::Map::new();
        let mut families = Vec::new();
        for word in words {
            match &word {
                Value::String(text) if ["IPv4", "IPv6"].contains(&text.as_str()) => families.push(word),
                Value::String(text) if text == "at" => {}
                word if moment("at", word).is_ok() => drop(event.insert("at".to_owned(), word.clone())),
                _ => {
                    if let Some(before) = event.insert("event".to_owned(), word) {
                        return Err(format!("event {before} and something else"));
                    }
                }
            }
        }
        if !families.is_empty() {
            event.insert("families".to_owned(), Value::Array(families));
        }
        self.event_fields(Fields::of(Value::Object(event))?, page)
    }

    fn event_fields(&mut self, mut event: Fields, page: Page) -> Result<(), Wrong> {
        let at = moment_of(&mut event, &AT)?.map(duration).transpose()?;
        self.pass_to(at)?;
        self.now += moment_of(&mut event, &LATER)?.map(duration).transpose()?.unwrap_or_default();
        let kind = one_of(&mut event, &["event", "op", "action", "do", "kind", "type", "what"])?;
        if let Some(kind) = kind {
            let kind = kind.as_str().ok_or_else(|| format!("event {kind} is not known"))?.to_owned();
            let families = families(one_of(&mut event, &FAMILIES)?.unwrap_or_default())?;
            self.happens(&kind, &families)?;
        }
        for key in CHANGE_CAME.into_iter().chain(KERNEL_HAS_IT) {
            if event.has(key) {
                let families = families(event.take(key))?;
                self.happens(key, &families)?;
            }
        }
        for (key, family) in [("IPv4", Family::V4), ("IPv6", Family::V6)] {
            if let Some(kind) = event.text(key)? {
                self.happens(&kind, &[family])?;
            }
        }
        if event.has("node") {
            let known = node(event.take("node"))?;
            self.health.set_node(known.as_ref());
        }
        if event.has("expect") {
            self.expect(event.take("expect"), page)?;
        }
        event.finish()
    }

    fn happens(&mut self, kind: &str, families: &[Family]) -> Result<(), Wrong> {
        let mut word = String::new();
        for letter in kind.chars() {
            if letter.is_ascii_uppercase() && !word.is_empty() {
                word.push('_');
            }
            word.push(if letter == '-' || letter == ' ' { '_' } else { letter.to_ascii_lowercase() });
        }
        for family in families {
            if CHANGE_CAME.contains(&word.as_str()) {
                self.health.queued(*family, self.now);
            } else if KERNEL_HAS_IT.contains(&word.as_str()) {
                self.health.updated(*family, self.now);
            } else {
                return Err(format!("event {kind} is not known"));
            }
        }
        Ok(())
    }

    fn expect(&self, expect: Value, page: Page) -> Result<(), Wrong> {
        let expect = match expect {
            Value::Object(sides) if sides.contains_key("healthz") || sides.contains_key("livez") => {
                for (side, expect) in sides {
                    self.expect(expect, self::page(&side)?)?;
                }
                return Ok(());
            }
            Value::Number(status) => {
                Value::Object([("status".to_owned(), Value::Number(status))].into_iter().collect())
            }
            expect => expect,
        };
        compare(Fields::of(expect)?, &self.health.report(page, self.now))
    }
}

/// The time that an event names.
fn time_of(event: &Value) -> Result<Option<Timestamp>, Wrong> {
    match event {
        Value::Object(map) => {
            let value = AT.iter().find_map(|key| map.get(*key));
            value.map(|value| moment("at", value)).transpose()
        }
        Value::Array(items) => Ok(items.first().and_then(|first| moment("at", first).ok())),
        _ => Ok(None),
    }
}

fn page(text: &str) -> Result<Page, Wrong> {
    match text.trim_start_matches('/').to_lowercase().as_str() {
        "healthz" => Ok(Page::Healthz),
        "livez" => Ok(Page::Livez),
        other => Err(format!("page {other} is not known")),
    }
}

/// One, several, or, when none is named, all.
fn families(value: Value) -> Result<Vec<Family>, Wrong> {
    let one = |value: &Value| {
        let text = value.as_str().ok_or_else(|| format!("{value} is no family"))?;
        match text {
            "ipv4" | "v4" => Ok(Family::V4),
            "ipv6" | "v6" => Ok(Family::V6),
            text => config::family(text),
        }
    };
    match value {
        Value::Null | Value::Bool(true) => Ok(vec![Family::V4, Family::V6]),
        Value::Array(items) => items.iter().map(one).collect(),
        Value::String(text) if ["both", "all"].contains(&text.as_str()) => Ok(vec![Family::V4, Family::V6]),
        value => Ok(vec![one(&value)?]),
    }
}

fn compare(mut expect: Fields, report: &HealthReport) -> Result<(), Wrong> {
    if let Some(status) = expect.number("status")? {
        equal("status", &status, &u64::from(report.status))?;
    }
    if let Some(healthy) = expect.boolean("healthy")? {
        equal("healthy", &healthy, &report.healthy)?;
    }
    if let Some(eligible) = one_of(&mut expect, &["node_eligible", "eligible"])? {
        let actual = report.node_eligible.map_or(Value::Null, Value::Bool);
        equal("node eligible", &eligible, &actual)?;
    }
    let last_updated = one_of(&mut expect, &["last_updated_s", "last_updated", "lastUpdated"])?;
    if let Some(time) = last_updated {
        same_time("last updated", &time, report.last_updated)?;
    }
    let current_time = one_of(&mut expect, &["current_time_s", "current_time", "currentTime"])?;
    if let Some(time) = current_time {
        same_time("current time", &time, Some(report.current_time))?;
    }
    // A family is unknown before its first update: it is healthy, and was updated never.
    if let Some(families) = one_of(&mut expect, &["families_healthy", "family_healthy", "healthy_families"])?
    {
        let actual: BTreeMap<&str, bool> = by_family(report, |health| health.is_none_or(|health| health.0));
        let wanted: BTreeMap<&str, bool> = match &families {
            Value::Bool(all) => actual.keys().map(|name| (*name, *all)).collect(),
            Value::Array(items) => actual
                .keys()
                .map(|name| (*name, items.iter().any(|item| item.as_str() == Some(name))))
                .collect(),
            value => {
                let mut fields = Fields::of(value.clone())?;
                let mut wanted = BTreeMap::new();
                for name in actual.keys() {
                    if let Some(healthy) = fields.boolean(name)? {
                        wanted.insert(*name, healthy);
                    }
                }
                fields.finish()?;
                wanted
            }
        };
        // Who is not named has nothing to say, unless something is wrong with it.
        let actual =
            actual.into_iter().filter(|(name, healthy)| wanted.contains_key(name) || !healthy).collect();
        equal("families healthy", &wanted, &actual)?;
    }
    let keys = [
        "families_last_updated_s",
        "family_last_updated_s",
        "families_last_updated",
        "families_updated_s",
        "last_updated_by_family_s",
    ];
    if let Some(families) = one_of(&mut expect, &keys)? {
        let actual = by_family(report, |health| health.map(|health| health.1));
        let mut fields = Fields::of(families)?;
        for (name, actual) in actual {
            if fields.has(name) {
                same_time(&format!("{name}: last updated"), &fields.take(name), actual)?;
            }
        }
        fields.finish()?;
    }
    let counterpart = report.reply(|_| String::new());
    for (header, value) in expect.entries("headers")? {
        let actual = counterpart.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(&header));
        let actual = actual.map_or(Value::Null, |(_, value)| Value::String(value.clone()));
        equal(&header, &value, &actual)?;
    }
    expect.finish()
}

fn by_family<T>(
    report: &HealthReport,
    get: impl Fn(Option<(bool, Duration)>) -> T,
) -> BTreeMap<&'static str, T> {
    [("IPv4", Family::V4), ("IPv6", Family::V6)]
        .into_iter()
        .map(|(name, family)| {
            (name, get(report.families.get(&family).map(|health| (health.healthy, health.last_updated))))
        })
        .collect()
}

/// Null, and the first year of all, is never.
fn same_time(what: &str, expect: &Value, actual: Option<Duration>) -> Result<(), Wrong> {
    let expect = match expect {
        Value::Null => None,
        value => Some(moment(what, value)?).filter(|time| time.0 >= 0).map(duration).transpose()?,
    };
    equal(what, &expect, &actual)
}
