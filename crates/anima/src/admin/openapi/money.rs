//! The schemas of money: what moves it, and what is read of the books.
//!
//! Invariant: an amount is a decimal in a string, whatever it is of.

use serde_json::{Map, Value, json};

use anima_core::ledger::{Component, EntryKind};

use super::reference;
use super::schemas::{
    amount, closed, instant, integer, list, nullable, page, text, version_no, word,
};

/// Every schema, by name.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("NewTopup", topup_payload()),
        ("Topup", topup()),
        ("NewRefund", refund_payload()),
        ("Refund", refund()),
        ("NewAdjustment", adjustment_payload()),
        ("Adjustment", adjustment()),
        ("NewPromo", promo_payload()),
        ("Promo", promo()),
        ("PromoPage", page(&grant())),
        ("Balance", balance()),
        ("Statement", statement()),
        ("PostingPage", page(&posting())),
        ("TrialBalance", trial_balance()),
        ("PayablePage", page(&payable())),
        ("MarginPage", page(&margin())),
        ("NewTrueUp", true_up_payload()),
        ("TrueUp", true_up()),
        ("EstimatePage", page(&estimates())),
        ("NewClearing", clearing_payload()),
        ("Clearing", clearing()),
        ("NewInvoice", invoice_payload()),
        ("Invoice", invoice()),
        ("InvoicePage", page(&invoiced_day())),
    ]
}

fn payload(members: &Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": members, "required": required,
        "additionalProperties": false })
}

fn given_reference() -> Value {
    json!({ "type": "string", "maxLength": 500, "description": "A document's number" })
}

/// What every movement answers.
fn moved(members: Value) -> Value {
    let mut all = json!({
        "currency": text("ISO 4217"),
        "reference": text("As given"),
        "replayed": { "type": "boolean", "description": "It had been done before" },
        "balance": reference("Balance"),
    });
    if let (Value::Object(all), Value::Object(members)) = (&mut all, members) {
        all.extend(members);
    }
    closed(&all)
}

fn id(description: &str) -> Value {
    json!({ "type": "string", "format": "uuid", "description": description })
}

fn topup_payload() -> Value {
    let members = json!({
        "amount": amount("Above 0, in the app's currency"),
        "fee": amount("What the payment provider keeps of it; the app gets the whole amount"),
        "reference": given_reference(),
        "reason": text("For the audit record"),
    });
    payload(&members, &["amount"])
}

fn topup() -> Value {
    moved(json!({
        "id": id("The journal entry"),
        "amount": amount("What was put in"),
        "fee": nullable(&amount("What the payment provider kept")),
    }))
}

fn refund_payload() -> Value {
    let members = json!({
        "request_id": text("`req_…` or a UUID"),
        "amount": amount("Above 0; absent is all that is left"),
        "reference": given_reference(),
        "reason": text("For the audit record"),
    });
    payload(&members, &["request_id"])
}

fn refund() -> Value {
    moved(json!({
        "id": id("The journal entry"),
        "request_id": text("The request"),
        "amount": amount("What was given back"),
        "to_wallet": amount("Of it, to the wallet"),
        "to_promo": amount("Of it, to the promotional credit that had paid"),
        "refundable": amount("What of the request can still be refunded"),
    }))
}

fn adjustment_payload() -> Value {
    let members = json!({
        "amount": amount("Above 0 gives, below 0 takes; never below the wallet's floor"),
        "reason": text("Why; for the books and the audit record"),
        "reference": given_reference(),
    });
    payload(&members, &["amount", "reason"])
}

fn adjustment() -> Value {
    moved(json!({
        "id": id("The journal entry"),
        "amount": amount("What was given, or taken"),
    }))
}

fn promo_payload() -> Value {
    let members = json!({
        "amount": amount("Above 0, in the app's currency"),
        "expires_at": instant("Calls admitted from here on cannot use it"),
        "sold": { "type": "boolean", "default": false,
            "description": "It was paid for: what expires of it is income" },
        "reference": given_reference(),
        "reason": text("For the audit record"),
    });
    payload(&members, &["amount", "expires_at"])
}

fn promo() -> Value {
    moved(json!({
        "id": id("The grant"),
        "amount": amount("What was given"),
        "sold": { "type": "boolean" },
        "expires_at": instant("Calls admitted from here on cannot use it"),
    }))
}

fn grant() -> Value {
    closed(&json!({
        "id": id("The grant"),
        "amount": amount("What was given"),
        "used": amount("What calls used, less what was given back"),
        "expired": amount("What was posted back unused"),
        "left": amount("What is left"),
        "currency": text("ISO 4217"),
        "sold": { "type": "boolean" },
        "granted_at": instant("When"),
        "expires_at": instant("Calls admitted from here on cannot use it"),
        "reference": text("As given"),
    }))
}

fn balance() -> Value {
    closed(&json!({
        "currency": text("ISO 4217"),
        "posted": amount("What the postings to the wallet come to"),
        "promo": amount("Promotional credit that has not expired; used before the wallet"),
        "held": amount("What open holds reserve"),
        "available": amount("What a new hold may take: posted + promo - held + credit_limit"),
        "credit_limit": amount("How far below zero the wallet may go"),
    }))
}

/// What a line of a statement may be about.
const LINES: &[&str] = &[
    "sales",
    "topup",
    "refund",
    "adjustment",
    "promo_grant",
    "promo_expiry",
    "correction",
    "settlement",
];

fn statement() -> Value {
    let sums = closed(&json!({
        "wallet": amount("The app's money"),
        "promo": amount("What is left of promotional credit"),
    }));
    let line = closed(&json!({
        "date": { "type": "string", "format": "date" },
        "kind": word(LINES, "What it is about; sales are summed by day and model"),
        "model": nullable(&text("The alias that was asked for")),
        "subject": nullable(&id("The request, grant or top-up")),
        "reference": text("As given"),
        "count": integer(1, "Calls or entries"),
        "wallet": amount("Above 0 came in, below 0 went out"),
        "promo": amount("The same for promotional credit"),
    }));
    closed(&json!({
        "app": text("The app's code"),
        "month": text("Such as `2026-01`"),
        "from": instant("Start of the month"),
        "to": instant("Start of the next"),
        "currency": text("ISO 4217"),
        "opening": sums,
        "lines": list(line, "By date; opening and lines give closing"),
        "closing": sums,
    }))
}

fn payable() -> Value {
    let age = closed(&json!({
        "total": amount("All of it"),
        "days_0_1": amount("Booked today or yesterday"),
        "days_2_7": amount("Two to seven days old"),
        "days_8_30": amount("Eight to thirty days old"),
        "older": amount("Older; below 0 what is overpaid"),
    }));
    closed(&json!({
        "channel": text("A channel's code"),
        "currency": text("ISO 4217"),
        "confirmed": age,
        "estimated": age,
    }))
}

fn true_up_payload() -> Value {
    let members = json!({
        "n": integer(1, "Which upstream call of the request"),
        "usage": { "type": "object", "additionalProperties": integer(0, "Quantity"),
            "description": "By meter; priced as when it was called. This or `cost`" },
        "service_tier": text("The tier that the provider reports with `usage`"),
        "cost": amount("In the attempt's currency. This or `usage`"),
    });
    let attempts = list(payload(&members, &["n"]), "Those that are reported; others stay");
    let members = json!({
        "attempts": attempts,
        "reason": text("Why; for the books and the audit record"),
        "reference": given_reference(),
    });
    payload(&members, &["attempts", "reason"])
}

fn true_up() -> Value {
    let attempt = closed(&json!({
        "n": integer(1, "Which upstream call"),
        "channel": text("A channel's code"),
        "model": text("The upstream model"),
        "cost": amount("As it is booked now"),
        "currency": text("ISO 4217"),
        "estimate": { "type": "boolean", "description": "A rate stood in for another one" },
    }));
    closed(&json!({
        "id": nullable(&id("The journal entry; null when the books said the same already")),
        "request_id": text("The request"),
        "app": text("Whose"),
        "given_back": amount("What the customer got back"),
        "charged_more": amount("What the customer paid more, within `sale_trueup_window_ms`"),
        "currency": text("ISO 4217, of the wallet"),
        "attempts": list(attempt, "Those that were reported"),
        "reference": text("As it is in the books"),
        "replayed": { "type": "boolean", "description": "It had been done before" },
    }))
}

fn estimate() -> Value {
    closed(&json!({
        "request_id": text("The request"),
        "attempt": nullable(&integer(1, "Which upstream call")),
        "channel": text("A channel's code"),
        "model": text("The upstream model"),
        "amount": amount("What was estimated and not confirmed"),
        "currency": text("ISO 4217"),
        "posted_at": instant("Since when"),
    }))
}

/// Call by call, or by day.
fn estimates() -> Value {
    let day = closed(&json!({
        "channel": text("A channel's code"),
        "currency": text("ISO 4217"),
        "day": { "type": "string", "format": "date" },
        "calls": integer(1, "Upstream calls that began on it"),
        "amount": amount("What was estimated and not confirmed"),
    }));
    json!({ "oneOf": [estimate(), day] })
}

/// What a clearing is of, with what else is said.
fn clearing_members(others: Value) -> Value {
    let named = json!({
        "channel": text("A channel's code"),
        "currency": text("ISO 4217"),
        "from": { "type": "string", "format": "date", "description": "The first day, UTC" },
        "to": { "type": "string", "format": "date", "description": "The last day" },
        "billed": { "type": "string", "enum": ["as_estimated", "nothing"],
            "description": "What the provider charges for them" },
        "reference": { "type": "string", "minLength": 1, "maxLength": 500,
            "description": "The invoice's number; names the report" },
    });
    let members = [named, others];
    let members = members.iter().filter_map(Value::as_object).flatten();
    Value::Object(members.map(|(name, member)| (name.clone(), member.clone())).collect())
}

fn clearing_payload() -> Value {
    let reason = text("Why; for the books and the audit record");
    let members = clearing_members(json!({ "reason": reason }));
    let required = ["channel", "currency", "from", "to", "billed", "reference", "reason"];
    payload(&members, &required)
}

fn clearing() -> Value {
    let all = "Nothing is open any more; when false, send the same again";
    closed(&clearing_members(json!({
        "cleared": integer(0, "Upstream calls that were cleared now"),
        "amount": nullable(&amount("What was estimated of them")),
        "is_all": { "type": "boolean", "description": all },
    })))
}

fn invoice_payload() -> Value {
    let day = json!({
        "day": { "type": "string", "format": "date", "description": "UTC; each day once" },
        "amount": amount("What is billed for the calls of that day"),
    });
    let members = json!({
        "channel": text("A channel's code"),
        "currency": text("ISO 4217"),
        "reference": { "type": "string", "minLength": 1, "maxLength": 500,
            "description": "The invoice's number" },
        "days": { "type": "array", "minItems": 1, "maxItems": 367,
            "items": payload(&day, &["day", "amount"]) },
        "reason": text("For the audit record"),
    });
    payload(&members, &["channel", "currency", "reference", "days"])
}

fn invoiced_day() -> Value {
    closed(&json!({
        "channel": text("A channel's code"),
        "currency": text("ISO 4217"),
        "day": { "type": "string", "format": "date" },
        "billed": amount("What the provider bills"),
        "confirmed": amount("What is booked as the provider reported it"),
        "estimated": amount("What is booked by our own estimate"),
        "difference": amount("billed - confirmed - estimated"),
        "difference_percent": nullable(&text("Of what is billed; null when that is 0")),
        "off": { "type": "boolean", "description": "More than 0.5 %: a breach of I12" },
        "reference": text("The invoice's number"),
        "noted_at": instant("When"),
    }))
}

fn invoice() -> Value {
    closed(&json!({
        "channel": text("A channel's code"),
        "currency": text("ISO 4217"),
        "reference": text("As given"),
        "off": integer(0, "Days that are off by more than 0.5 %"),
        "days": list(invoiced_day(), "As they compare now"),
    }))
}

fn margin() -> Value {
    let members = json!({
        "channel": text("Which channel served, or cost"),
        "model": text("The upstream model"),
        "alias": text("The alias that was asked for"),
        "app": text("Whose calls"),
        "day": { "type": "string", "format": "date" },
        "currency": text("ISO 4217; lines of different currencies are never added up"),
        "revenue": amount("Sales, collected or not"),
        "refunds": amount("Given back"),
        "cost": amount("Of attempts that served"),
        "waste": amount("Of attempts that served nobody, or that nobody paid for"),
        "uncollected": amount("Of the sales, what no wallet covered"),
        "fx": amount("What conversions earned"),
        "margin": amount("revenue + fx - refunds - cost - waste - uncollected"),
        "sales": integer(0, "Requests with a sale"),
    });
    let always =
        ["currency", "revenue", "refunds", "cost", "waste", "uncollected", "fx", "margin", "sales"];
    json!({ "type": "object", "properties": members, "required": always })
}

/// A stored word of one of our enumerations.
fn words<T: serde::Serialize>(all: &[T]) -> Vec<Value> {
    all.iter().map(|one| serde_json::to_value(one).unwrap_or_default()).collect()
}

fn posting() -> Value {
    let price = json!({ "code": text("A price, or a rate"), "version_no": version_no() });
    let kinds = words(EntryKind::ALL);
    let components = words(Component::ALL);
    closed(&json!({
        "journal": { "type": "string", "format": "uuid" },
        "kind": { "type": "string", "enum": kinds, "description": "Of the entry" },
        "subject": { "type": "string", "format": "uuid" },
        "request_id": text("The subject as requests write it"),
        "n": integer(1, "Position in the entry"),
        "debit": text("Account: `wallet:<app>`, `revenue`, `payable:<channel>`, …"),
        "credit": text("Account"),
        "amount": amount("Above 0"),
        "currency": text("ISO 4217"),
        "component": { "type": "string", "enum": components,
            "description": "What the leg is for" },
        "attempt": nullable(&integer(1, "Which upstream call")),
        "price": nullable(&closed(&price)),
        "estimate": { "type": "boolean", "description": "The usage was not reported" },
        "reference": text("Of a top-up or correction"),
        "posted_at": instant("When"),
    }))
}

fn sums(mut members: Map<String, Value>) -> Value {
    members.insert("currency".to_owned(), text("ISO 4217"));
    members.insert("debits".to_owned(), amount("Sum of debits"));
    members.insert("credits".to_owned(), amount("Sum of credits"));
    closed(&Value::Object(members))
}

fn trial_balance() -> Value {
    let account = json!({ "account": text("Its code"), "class": { "type": "integer" } });
    let line = sums(account.as_object().cloned().unwrap_or_default());
    let mut schema = page(&line);
    if let Some(Value::Object(members)) = schema.get_mut("properties") {
        let totals = list(sums(Map::new()), "By currency; debits equal credits");
        members.insert("totals".to_owned(), totals);
    }
    schema
}
