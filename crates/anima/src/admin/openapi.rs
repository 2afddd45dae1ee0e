//! The OpenAPI document, made from the table of endpoints and one schema per payload.
//!
//! Not derived from the types: the pure crates know nothing of OpenAPI. Tests hold the two
//! together: every member that the types accept is here and no other. Invariant: the text is the
//! same on every machine, with members in alphabetical order.

use http::Method;
use serde_json::{Map, Value, json};

use super::collection::Codes;
use super::endpoints::{self, Action, Endpoint, Verb};
use super::hatches::Lever;
use super::problem::Code;
use super::tasks::Wish;

mod hatches;
mod limits;
mod money;
mod payloads;
mod requests;
mod routing;
mod schemas;
mod tasks;
mod usage;

pub(crate) use payloads::payload;

/// The document as text, without a final newline.
pub fn document() -> String {
    let mut paths = Map::new();
    for endpoint in endpoints::all() {
        let item = paths.entry(endpoint.path.clone()).or_insert_with(|| json!({}));
        let method = endpoint.method.as_str().to_ascii_lowercase();
        if let Value::Object(item) = item {
            item.insert(method, operation(&endpoint));
        }
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Anima admin API",
            "version": "1",
            "description": "Configuration, wallets and books of an Anima gateway. Money and \
                multipliers are decimal strings, times RFC 3339, durations milliseconds. Unknown \
                members are refused.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/api/admin/v1" }],
        "security": [{ "admin_token": [] }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "securitySchemes": {
                "admin_token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An admin token with the role viewer (reads), operator (reads \
                        and flips `enabled`) or admin.",
                },
            },
            "schemas": schemas::all(),
            "responses": {
                "Problem": {
                    "description": "Refused; `code` says why, `errors` where.",
                    "content": { "application/problem+json": { "schema": reference("Problem") } },
                },
            },
        },
    });
    document.sort_all_objects();
    format!("{document:#}")
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn tags() -> Vec<Value> {
    let rows = endpoints::COLLECTIONS.iter().map(|collection| collection.path());
    let others = ["requests", "usage", "ledger", "circuits", "nodes", "tasks", "hatches", "audit"];
    rows.chain(others).map(|name| json!({ "name": name })).collect()
}

fn operation(endpoint: &Endpoint) -> Value {
    let words = Words::of(endpoint.action);
    let mut operation = json!({
        "operationId": words.id,
        "summary": words.summary,
        "tags": [words.tag],
        "parameters": parameters(endpoint),
        "responses": responses(endpoint.action),
    });
    if let (Some(body), Value::Object(members)) = (request_body(endpoint), &mut operation) {
        members.insert("requestBody".to_owned(), body);
    }
    operation
}

/// How an operation is called.
struct Words {
    id: String,
    summary: String,
    tag: &'static str,
}

impl Words {
    fn of(action: Action) -> Self {
        let fixed = |id: &str, summary: &str, tag| Self {
            id: id.to_owned(),
            summary: summary.to_owned(),
            tag,
        };
        match action {
            Action::Rows(verb, collection) => {
                let name = payload(collection.resource()).name;
                let summary = match verb {
                    Verb::List => "Lists rows as of now, by code",
                    Verb::Create => "Creates a row",
                    Verb::Read => "Reads a row as of now",
                    Verb::Change => "Changes a row, or only its switch",
                    Verb::Delete => "Ends a row now; its history stays",
                    Verb::Versions => "Lists a row's versions, newest first",
                    Verb::Restore => "Writes a new version that says what an old one said",
                };
                let id = format!("{verb:?}{name}").to_ascii_lowercase();
                Self { id, summary: summary.to_owned(), tag: collection.path() }
            }
            Action::TopUp => fixed("topup", "Puts money into a wallet, once per key", "apps"),
            Action::Refund => {
                fixed("refund", "Gives back what a request was charged, once per key", "apps")
            }
            Action::Adjust => {
                fixed("adjust", "Corrects an app's wallet, either way, once per key", "apps")
            }
            Action::Grant => fixed("grant", "Gives promotional credit, once per key", "apps"),
            Action::Grants => fixed("grants", "Lists an app's promotional credit", "apps"),
            Action::Statement => {
                fixed("statement", "What moved on an app's wallet in a month", "apps")
            }
            Action::Payables => fixed("payables", "Lists what providers are owed", "ledger"),
            Action::Estimates => fixed("estimates", "Lists costs that nobody confirmed", "ledger"),
            Action::Clear => fixed("clear", "Clears a period's estimated costs", "ledger"),
            Action::Invoice => fixed("invoice", "Notes and compares a provider's bill", "ledger"),
            Action::Invoices => fixed("invoices", "Lists providers' bills, compared", "ledger"),
            Action::TrueUp => {
                fixed("trueup", "Books what a provider reports late, once per key", "ledger")
            }
            Action::Usage => fixed("usage", "What calls used, cost and were charged", "usage"),
            Action::Margin => fixed("margin", "What calls earned, grouped", "ledger"),
            Action::Balance => fixed("balance", "Reads what an app's wallet holds", "apps"),
            Action::Request => fixed("request", "Reads all about one request", "requests"),
            Action::Postings => fixed("postings", "Lists the postings about a request", "ledger"),
            Action::TrialBalance => fixed("trialbalance", "Sums up every account", "ledger"),
            Action::Verify => fixed("verify", "Checks the ledger's invariants now", "ledger"),
            Action::Hatch(lever) => {
                let (id, summary) = hatches::words(lever);
                fixed(id, summary, "hatches")
            }
            Action::Tasks(wish) => {
                let (id, summary) = tasks::words(wish);
                fixed(id, summary, "tasks")
            }
            Action::Audit => fixed("audit", "Lists who changed what, newest first", "audit"),
            Action::Nodes => fixed("nodes", "Lists the nodes of the installation", "nodes"),
            Action::Queues => {
                fixed("queues", "Lists the calls that wait, by line and key", "nodes")
            }
            Action::LimitsOfKey => {
                fixed("limits_of_key", "Shows how far every limit of a key is used", "keys")
            }
            Action::Circuits => {
                fixed("circuits", "Lists this node's circuits by channel", "circuits")
            }
        }
    }
}

/// A member of the query. `required` is written out where it is false, too.
fn query(name: &str, schema: &Value, required: bool, description: &str) -> Value {
    json!({ "name": name, "in": "query", "required": required, "description": description,
        "schema": schema })
}

fn header(name: &str, required: bool, description: &str) -> Value {
    let schema = json!({ "type": "string" });
    json!({ "name": name, "in": "header", "required": required, "description": description,
        "schema": schema })
}

/// What stands in braces in a path.
fn names_of(path: &str) -> Vec<Value> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let schema =
                if name == "n" { schemas::version_no() } else { json!({"type": "string"}) };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect()
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let mut parameters = names_of(&endpoint.path);
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": 200, "default": 50 });
    let moment = json!({ "type": "string", "format": "date-time" });
    let word = json!({ "type": "string" });
    match endpoint.action {
        Action::Rows(Verb::List, _) => {
            parameters.push(query("limit", &limit, false, "Rows of a page"));
            parameters.push(query("after", &word, false, "`next` of the page before"));
        }
        Action::Rows(Verb::Change | Verb::Delete | Verb::Restore, _) => {
            let description = "The version that was read, in quotes; instead of `version_no`";
            parameters.push(header("If-Match", false, description));
        }
        Action::TopUp | Action::Refund | Action::Adjust | Action::Grant | Action::TrueUp => {
            let description = "1 to 255 ASCII characters; names the movement";
            parameters.push(header("Idempotency-Key", true, description));
        }
        Action::Postings => parameters.push(query("request_id", &word, true, "`req_…` or a UUID")),
        Action::Statement => {
            let month = json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$" });
            parameters.push(query("month", &month, true, "Such as `2026-01`, UTC"));
            let format = json!({ "type": "string", "enum": ["json", "csv"], "default": "json" });
            parameters.push(query("format", &format, false, "How it is written"));
        }
        Action::TrialBalance => parameters.push(query("at", &moment, false, "Just before; or now")),
        Action::Invoices => parameters.extend(of_channel(&limit)),
        Action::Estimates => parameters.extend(estimates_of(&limit)),
        Action::Usage => parameters.extend(usage::parameters(&limit, &moment)),
        Action::Margin => {
            parameters.push(query("request_id", &word, false, "Of one request"));
            parameters.push(query("from", &moment, false, "Posted from here on"));
            parameters.push(query("to", &moment, false, "Posted until just before here"));
            let groups = "Some of `channel,model,alias,app,day`; `channel,model,day` when absent";
            parameters.push(query("group_by", &word, false, groups));
        }
        Action::Audit => {
            parameters.push(query("limit", &limit, false, "Records of a page"));
            let before = "`next` of the page before";
            parameters.push(query("before", &json!({ "type": "integer" }), false, before));
        }
        Action::Tasks(Wish::List) => parameters.extend(tasks::filters(&limit)),
        Action::Circuits => parameters.push(query("channel", &word, false, "Only this channel's")),
        Action::Rows(Verb::Create | Verb::Read | Verb::Versions, _)
        | Action::Tasks(Wish::Read | Wish::Cancel | Wish::Replay)
        | Action::Hatch(_)
        | Action::Grants
        | Action::Balance
        | Action::Request
        | Action::Payables
        | Action::Clear
        | Action::Invoice
        | Action::Nodes
        | Action::Queues
        | Action::LimitsOfKey
        | Action::Verify => {}
    }
    spreading(endpoint, &mut parameters);
    if endpoint.method != Method::GET {
        let description = "Why, for the audit record; the member `reason` overrides it";
        parameters.push(header("x-anima-reason", false, description));
    }
    parameters
}

/// What a write may say about rehearsing it and about other nodes.
fn spreading(endpoint: &Endpoint, parameters: &mut Vec<Value>) {
    let is_row = matches!(endpoint.action, Action::Rows(..)) && endpoint.method != Method::GET;
    let lever = if let Action::Hatch(lever) = endpoint.action { Some(lever) } else { None };
    let cancels = lever == Some(Lever::CancelScheduled);
    if cancels {
        let description = "The row's latest version, in quotes; instead of `version_no`";
        parameters.push(header("If-Match", false, description));
    }
    if is_row || cancels {
        let schema = json!({ "type": "boolean", "default": false });
        let description = "Judge and answer a `Rehearsal` (200), but write nothing";
        parameters.push(query("dry_run", &schema, false, description));
    }
    if is_row || lever.is_some_and(hatches::waits) {
        let wait = json!({ "type": "integer", "minimum": 0, "maximum": 5000 });
        let description = "How long to wait until every living node has the change; hatches and \
            lone switches wait 1000 without it";
        parameters.push(query("wait_ms", &wait, false, description));
    }
}

fn estimates_of(limit: &Value) -> [Value; 5] {
    let [channel, limit] = of_channel(limit);
    let day = json!({ "type": "string", "format": "date" });
    let by = json!({ "type": "string", "enum": ["call", "day"], "default": "call" });
    let from = query("from", &day, false, "Of calls that began on it or later, UTC");
    let to = query("to", &day, false, "Of calls that began on it or earlier");
    [channel, limit, from, to, query("by", &by, false, "One by one, or added up by day")]
}

fn of_channel(limit: &Value) -> [Value; 2] {
    let channel = query("channel", &json!({ "type": "string" }), false, "Of one channel");
    [channel, query("limit", limit, false, "Rows at most")]
}

fn request_body(endpoint: &Endpoint) -> Option<Value> {
    let (schema, required) = match endpoint.action {
        Action::Rows(verb, collection) => {
            let name = payload(collection.resource()).name;
            match verb {
                Verb::Create => (format!("New{name}"), true),
                Verb::Change => (format!("{name}Change"), true),
                Verb::Delete | Verb::Restore => ("StatedVersion".to_owned(), false),
                Verb::List | Verb::Read | Verb::Versions => return None,
            }
        }
        Action::TopUp => ("NewTopup".to_owned(), true),
        Action::Refund => ("NewRefund".to_owned(), true),
        Action::Adjust => ("NewAdjustment".to_owned(), true),
        Action::Grant => ("NewPromo".to_owned(), true),
        Action::Clear => ("NewClearing".to_owned(), true),
        Action::Invoice => ("NewInvoice".to_owned(), true),
        Action::Hatch(lever) => {
            let (schema, required) = hatches::body(lever)?;
            (schema.to_owned(), required)
        }
        Action::TrueUp => ("NewTrueUp".to_owned(), true),
        Action::Tasks(Wish::Cancel | Wish::Replay) => ("Reason".to_owned(), false),
        Action::Grants
        | Action::Balance
        | Action::Statement
        | Action::Request
        | Action::Postings
        | Action::TrialBalance
        | Action::Payables
        | Action::Estimates
        | Action::Invoices
        | Action::Margin
        | Action::Verify
        | Action::Usage
        | Action::Audit
        | Action::Circuits
        | Action::Nodes
        | Action::Queues
        | Action::LimitsOfKey
        | Action::Tasks(Wish::List | Wish::Read) => return None,
    };
    let content = json!({ "application/json": { "schema": reference(&schema) } });
    Some(json!({ "required": required, "content": content }))
}

fn responses(action: Action) -> Value {
    let (status, schema) = match action {
        Action::Rows(verb, collection) => {
            let name = payload(collection.resource()).name;
            let minted = collection.codes() == Codes::Minted;
            match verb {
                Verb::Create if minted => ("201", Some(format!("Minted{name}"))),
                Verb::Create => ("201", Some(name.to_owned())),
                Verb::Read | Verb::Change | Verb::Restore => ("200", Some(name.to_owned())),
                Verb::List | Verb::Versions => ("200", Some(format!("{name}Page"))),
                Verb::Delete => ("204", None),
            }
        }
        Action::TopUp => ("201", Some("Topup".to_owned())),
        Action::Refund => ("201", Some("Refund".to_owned())),
        Action::Adjust => ("201", Some("Adjustment".to_owned())),
        Action::Grant => ("201", Some("Promo".to_owned())),
        Action::TrueUp => ("201", Some("TrueUp".to_owned())),
        Action::Estimates => ("200", Some("EstimatePage".to_owned())),
        Action::Clear => ("200", Some("Clearing".to_owned())),
        Action::Invoice => ("201", Some("Invoice".to_owned())),
        Action::Invoices => ("200", Some("InvoicePage".to_owned())),
        Action::Grants => ("200", Some("PromoPage".to_owned())),
        Action::Statement => ("200", Some("Statement".to_owned())),
        Action::Payables => ("200", Some("PayablePage".to_owned())),
        Action::Margin => ("200", Some("MarginPage".to_owned())),
        Action::Usage => ("200", Some("UsagePage".to_owned())),
        Action::Balance => ("200", Some("Balance".to_owned())),
        Action::Request => ("200", Some("RequestRecord".to_owned())),
        Action::Postings => ("200", Some("PostingPage".to_owned())),
        Action::TrialBalance => ("200", Some("TrialBalance".to_owned())),
        Action::Verify => ("200", Some("Verification".to_owned())),
        Action::Audit => ("200", Some("AuditPage".to_owned())),
        Action::Circuits => ("200", Some("CircuitPage".to_owned())),
        Action::Nodes => ("200", Some("NodePage".to_owned())),
        Action::Queues => ("200", Some("QueuePage".to_owned())),
        Action::LimitsOfKey => ("200", Some("LimitPage".to_owned())),
        Action::Tasks(Wish::List) => ("200", Some("TaskPage".to_owned())),
        Action::Tasks(Wish::Read | Wish::Cancel | Wish::Replay) => ("200", Some("Task".to_owned())),
        Action::Hatch(lever) => {
            let (status, schema) = hatches::answer(lever);
            (status, schema.map(str::to_owned))
        }
    };
    let described = |description: &str| match &schema {
        Some(schema) => json!({
            "description": description,
            "content": { "application/json": { "schema": reference(schema) } },
        }),
        None => json!({ "description": description }),
    };
    let mut responses = json!({
        status: described("Done"),
        "default": { "$ref": "#/components/responses/Problem" },
    });
    let is_movement = matches!(
        action,
        Action::TopUp | Action::Refund | Action::Adjust | Action::Grant | Action::TrueUp
    );
    if let (true, Value::Object(members)) = (is_movement, &mut responses) {
        members.insert("200".to_owned(), described("Done before, with the same key"));
    }
    let content = responses.pointer_mut("/200/content").and_then(Value::as_object_mut);
    if let (Action::Statement, Some(content)) = (action, content) {
        content.insert("text/csv".to_owned(), json!({ "schema": { "type": "string" } }));
    }
    responses
}

/// The words of the problems, for their schema.
fn problem_codes() -> Vec<&'static str> {
    Code::ALL.iter().map(|code| code.name()).collect()
}

#[cfg(test)]
mod tests;
