//! What an operator can set: defaults, then a TOML file, then `ANIMA_*` variables, then flags.
//!
//! The only reader of the environment. Invariant: a wrong setting stops the start with one line
//! that names it; there is no option that `anima.default.toml` does not list.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use zeroize::Zeroizing;

/// The defaults, compiled in.
const DEFAULTS: &str = include_str!("../../../anima.default.toml");

/// A wrong setting, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{name}`: {problem}")]
pub struct Error {
    /// The setting's name.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Everything an operator can set. Names and units are those of `anima.default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "anima.default.toml documents each")]
pub struct Settings {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub database_url: Secret,
    pub database_listen: Listen,
    pub redis_url: Secret,
    pub redis_timeout_ms: u64,
    pub redis_failures_max: u32,
    pub redis_prefix: String,
    pub master_key: Secret,
    pub admin_token: Secret,
    pub outbound_allow_private: Vec<IpNet>,
    pub billing: Billing,
    pub worker_threads: usize,
    pub body_bytes_max: usize,
    pub body_timeout_ms: u64,
    pub bodies_bytes_max: usize,
    pub answer_bytes_max: usize,
    pub hold_output_tokens: u64,
    pub budget_output_tokens: u64,
    pub budget_repair_ms: u64,
    pub min_output_tokens: u64,
    pub idempotency_keep_ms: u64,
    pub idempotency_answer_bytes_max: usize,
    pub task_workers: usize,
    pub task_queue_max: u64,
    pub task_wait_max_ms: u64,
    pub task_keep_ms: u64,
    pub task_answer_bytes_max: usize,
    pub queue_heartbeat_after_ms: u64,
    pub queue_heartbeat_ms: u64,
    pub ledger_audit_ms: u64,
    pub ledger_audit_all_ms: u64,
    pub drain_timeout_ms: u64,
    pub partial_streams: Partial,
    pub sale_trueup_window_ms: u64,
    pub hold_exhausted: HoldExhausted,
    pub key_shortfalls_max: u32,
    pub key_shortfall_window_ms: u64,
    pub retry_wait_max_ms: u64,
    pub caller_steering: Switch,
    pub caller_trace: Switch,
    pub records_per_s: u32,
    pub plain_records_per_s: u32,
    pub records_keep_ms: u64,
    pub shutdown_delay_ms: u64,
    pub shutdown_timeout_ms: u64,
    pub log: String,
}

/// Whether PostgreSQL's own word of changes is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "on and off")]
pub enum Listen {
    On,
    Off,
}

/// Whether calls are held and booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "on and off")]
pub enum Billing {
    On,
    Off,
}

/// Whether something is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "on and off")]
pub enum Switch {
    On,
    Off,
}

/// What a customer pays for a stream that its provider broke off after content had come
/// (`reliability` 1.6, row 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partial {
    /// The prompt and what was delivered.
    Delivered,
    /// Nothing.
    Free,
    /// What was delivered, and of the prompt the share that the delivered part is of the answer's
    /// limit.
    ProRata,
}

/// What happens to a stream that has used up its hold when there is no more (`reliability` 1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldExhausted {
    /// It ends with an error event, and what was delivered is settled.
    Cut,
    /// It goes on; what it comes to above the hold is taken down to the wallet's floor, and the
    /// rest is not collected.
    Overdraft,
}

/// A setting that may hold a secret and is never shown.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"…\"" })
    }
}

impl Secret {
    /// The text, unless empty.
    pub fn given(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(self.0.as_str())
    }
}

/// What the command line may override.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Where the embedded database and the master key live.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// A TOML file of settings.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Settings {
    /// Reads everything, in order of precedence.
    ///
    /// # Errors
    /// The first wrong setting.
    pub fn load(flags: &Flags) -> Result<Self, Error> {
        Self::layer(flags, &environment())
    }

    /// Between two looks at the books; `None` where there are none, or nobody is to look.
    pub fn audit_every(&self) -> Option<Duration> {
        self.every(self.ledger_audit_ms)
    }

    /// Between two looks at all books, of all nodes together; `None` likewise.
    pub fn audit_all_every(&self) -> Option<Duration> {
        self.every(self.ledger_audit_all_ms)
    }

    /// Between two comparisons of budgets with the ledger; `None` likewise.
    pub fn budget_repair(&self) -> Option<Duration> {
        self.every(self.budget_repair_ms)
    }

    fn every(&self, ms: u64) -> Option<Duration> {
        (self.billing == Billing::On && ms > 0).then(|| Duration::from_millis(ms))
    }

    fn layer(flags: &Flags, environment: &[(String, String)]) -> Result<Self, Error> {
        let mut table = parse("anima.default.toml", DEFAULTS)?;
        let named = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let file = flags.config.clone().or_else(|| named("config").map(PathBuf::from));
        if let Some(path) = file {
            let shown = path.display().to_string();
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Error { name: "config".into(), problem: format!("{shown}: {e}") })?;
            for (name, value) in parse(&shown, &text)? {
                if table.insert(name.clone(), value).is_none() {
                    return Err(Error { name, problem: format!("unknown, in {shown}") });
                }
            }
        }
        for (name, text) in environment.iter().filter(|(n, _)| n != "config") {
            overlay(&mut table, name, text, "ANIMA_ variable")?;
        }
        for (name, text) in [("listen", &flags.listen), ("data_dir", &flags.data_dir)] {
            if let Some(text) = text {
                overlay(&mut table, name, text, "flag")?;
            }
        }
        Self::typed(table)
    }

    /// Gives each value its type, one by one, so that an error names its setting.
    fn typed(table: toml::Table) -> Result<Self, Error> {
        for (name, value) in &table {
            let mut probe = parse("anima.default.toml", DEFAULTS)?;
            probe.insert(name.clone(), value.clone());
            if let Err(error) = probe.try_into::<Self>() {
                let problem = error.message().trim().replace('\n', " ");
                return Err(Error { name: name.clone(), problem });
            }
        }
        let settings: Self = table.try_into().map_err(|e: toml::de::Error| Error {
            name: "settings".into(),
            problem: e.to_string(),
        })?;
        settings.check()
    }

    fn check(self) -> Result<Self, Error> {
        let wrong =
            |name: &str, problem: &str| Err(Error { name: name.into(), problem: problem.into() });
        if let Some(url) = self.database_url.given()
            && let Err(error) = anima_store::database::Location::parse(url)
        {
            return wrong("database_url", &error.to_string());
        }
        if let Some(url) = self.redis_url.given()
            && let Err(error) = anima_store::redis::check(url)
        {
            return wrong("redis_url", &error.to_string());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        if self.redis_prefix.is_empty() || !self.redis_prefix.chars().all(plain) {
            return wrong("redis_prefix", "expected letters, digits and any of _ - . :");
        }
        if let Some(key) = self.master_key.given()
            && let Err(error) = crate::secrets::parse_master_key(key)
        {
            return wrong("master_key", &error.to_string());
        }
        if self.admin_token.given().is_some_and(|t| t.len() < 16) {
            return wrong("admin_token", "expected at least 16 characters");
        }
        for (value, name) in [
            (self.body_bytes_max as u64, "body_bytes_max"),
            (self.body_timeout_ms, "body_timeout_ms"),
            (self.bodies_bytes_max as u64, "bodies_bytes_max"),
            (self.answer_bytes_max as u64, "answer_bytes_max"),
            (self.hold_output_tokens, "hold_output_tokens"),
            (self.budget_output_tokens, "budget_output_tokens"),
            (self.idempotency_keep_ms, "idempotency_keep_ms"),
            (self.min_output_tokens, "min_output_tokens"),
            (self.task_queue_max, "task_queue_max"),
            (self.task_wait_max_ms, "task_wait_max_ms"),
            (self.task_keep_ms, "task_keep_ms"),
            (self.task_answer_bytes_max as u64, "task_answer_bytes_max"),
            (self.queue_heartbeat_ms, "queue_heartbeat_ms"),
            (self.redis_timeout_ms, "redis_timeout_ms"),
            (self.key_shortfall_window_ms, "key_shortfall_window_ms"),
            (u64::from(self.redis_failures_max), "redis_failures_max"),
        ] {
            if value == 0 {
                return wrong(name, "expected more than 0");
            }
        }
        Ok(self)
    }
}

/// One variable of the process that is not an `ANIMA_` setting, such as `OPENAI_API_KEY`.
#[expect(clippy::disallowed_methods, reason = "this file is the one reader of the environment")]
pub fn foreign_variable(name: &str) -> Option<Zeroizing<String>> {
    std::env::var(name).ok().filter(|v| !v.trim().is_empty()).map(Zeroizing::new)
}

/// Beginnings of `ANIMA_` variables that are not settings: those of this repository's own tests and
/// benchmarks, and those that Kubernetes gives every pod beside a service named `anima`.
const FOREIGN: &[&str] = &["test_", "bench_", "service_", "port"];

/// The `ANIMA_*` variables as setting names and texts. Empty ones count as unset.
#[expect(clippy::disallowed_methods, reason = "this file is the one reader of the environment")]
fn environment() -> Vec<(String, String)> {
    std::env::vars().filter_map(|(name, value)| setting(&name, value)).collect()
}

/// The setting that a variable gives, if it is one of ours.
fn setting(variable: &str, value: String) -> Option<(String, String)> {
    let name = variable.strip_prefix("ANIMA_")?.to_ascii_lowercase();
    let ours = !value.is_empty() && !FOREIGN.iter().any(|start| name.starts_with(start));
    ours.then_some((name, value))
}

fn parse(source: &str, text: &str) -> Result<toml::Table, Error> {
    text.parse::<toml::Table>().map_err(|error| Error {
        name: source.to_owned(),
        problem: error.message().trim().replace('\n', " "),
    })
}

/// Puts a text in the place of a value, read as the type that the default has.
fn overlay(table: &mut toml::Table, name: &str, text: &str, kind: &str) -> Result<(), Error> {
    let wrong = |problem: String| Error { name: name.to_owned(), problem };
    let Some(slot) = table.get_mut(name) else {
        return Err(wrong(format!("there is no such setting, but a {kind} sets it")));
    };
    *slot = match slot {
        toml::Value::Integer(_) => {
            let number: Result<i64, _> = text.trim().parse();
            toml::Value::Integer(
                number.ok().ok_or_else(|| wrong("expected a whole number".into()))?,
            )
        }
        toml::Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|t| !t.is_empty());
            toml::Value::Array(items.map(|t| toml::Value::String(t.to_owned())).collect())
        }
        toml::Value::String(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Table(_) => toml::Value::String(text.to_owned()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        Settings::layer(&Flags::default(), &pairs)
    }

    #[test]
    fn the_defaults_are_complete_and_known() {
        let settings = with(&[]).unwrap();
        assert_eq!(settings.listen.port(), 8080);
        assert_eq!(settings.billing, Billing::On);
    }

    #[test]
    fn a_flag_wins_over_a_variable() {
        let flags = Flags { listen: Some("127.0.0.1:9".into()), ..Flags::default() };
        let variable = vec![("listen".to_owned(), "127.0.0.1:8".to_owned())];
        assert_eq!(Settings::layer(&flags, &variable).unwrap().listen.port(), 9);
    }

    #[test]
    fn a_wrong_setting_is_named_in_one_line() {
        for (name, value) in [
            ("listen", "nowhere"),
            ("worker_threads", "many"),
            ("billing", "maybe"),
            ("partial_streams", "half"),
            ("hold_exhausted", "crash"),
            ("caller_steering", "perhaps"),
            ("min_output_tokens", "0"),
            ("task_keep_ms", "0"),
            ("queue_heartbeat_ms", "0"),
            ("database_url", "mysql://x"),
            ("redis_url", "http://x"),
            ("redis_url", "redis+sentinel://x"),
            ("redis_prefix", "{a}"),
            ("redis_timeout_ms", "0"),
            ("master_key", "short"),
            ("admin_token", "short"),
            ("outbound_allow_private", "10.0.0.0/99"),
            ("body_bytes_max", "0"),
            ("lisen", "127.0.0.1:1"),
        ] {
            let error = with(&[(name, value)]).unwrap_err();
            assert_eq!(error.name, name, "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn variables_of_others_are_no_settings() {
        for name in ["ANIMA_PORT", "ANIMA_PORT_8080_TCP", "ANIMA_SERVICE_HOST", "ANIMA_TEST_X", "X"]
        {
            assert_eq!(setting(name, "1".into()), None, "{name}");
        }
        assert!(setting("ANIMA_LISEN", "1".into()).is_some(), "a typing error must be seen");
    }

    #[test]
    fn secrets_do_not_show() {
        let settings = with(&[("admin_token", "0123456789abcdef")]).unwrap();
        assert!(!format!("{settings:?}").contains("0123456789abcdef"));
    }
}
