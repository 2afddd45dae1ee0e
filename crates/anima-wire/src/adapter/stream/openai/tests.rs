//! Order, counting and the facts of a stream. Whole conversations are in `fixtures/`.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const DONE: &str = "data: [DONE]\n\n";

fn text(content: &str) -> String {
    let chunk = json!({"id": "c", "choices": [{"index": 0, "delta": {"content": content}}]});
    format!("data: {chunk}\n\n")
}

fn usage(choices: &str, input: u64, output: u64) -> String {
    format!(
        "data: {{\"choices\":{choices},\"usage\":{{\"prompt_tokens\":{input},\
        \"completion_tokens\":{output}}}}}\n\n"
    )
}

fn decode(stream: &str) -> (Passing, Vec<Bytes>, Result<(), Failure>) {
    let mut decoder = Passing::new(false, (0, 1));
    let mut out = Vec::new();
    let result = decoder
        .push(Bytes::copy_from_slice(stream.as_bytes()), &mut out)
        .and_then(|()| decoder.end(&mut out));
    (decoder, out, result)
}

#[test]
fn the_terminator_is_held_back_and_what_follows_is_ignored() {
    let (decoder, out, result) = decode(&format!("{}{DONE}{}garbage", text("a"), text("b")));
    assert_eq!((result, decoder.is_done()), (Ok(()), true));
    assert_eq!(out.concat(), text("a").as_bytes());
    assert_eq!(Passing::terminator(), DONE.as_bytes());
}

#[test]
fn an_end_without_terminator_is_a_cut() {
    for stream in ["", ": wait\n\n", &text("a"), "data: [DON", "data: {\"choices\":"] {
        assert_eq!(decode(stream).2, Err(Failure::StreamCut), "{stream:?}");
    }
}

#[test]
fn a_page_instead_of_a_stream_is_malformed() {
    for body in ["<html><body>\n\noops</body></html>", "{\"id\":1}", "{\n\n\"a\":1}"] {
        assert_eq!(decode(body).2, Err(Failure::AnswerMalformed), "{body:?}");
    }
}

#[test]
fn passing_chunks_are_not_copied() {
    let chunk = Bytes::from(format!("{}{}", text("a"), text("b")));
    let mut out = Vec::new();
    Passing::new(true, (0, 1)).push(chunk.clone(), &mut out).unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].as_ptr(), out[0].len()), (chunk.as_ptr(), chunk.len()));
}

#[test]
fn text_of_a_chunk_that_is_not_delivered_is_not_counted() {
    let stream = format!(
        "{}data: {{\"choices\":[{{\"delta\":{{\"content\":\"more text\"}}}}],oops\n\n",
        text("a")
    );
    let (mut decoder, _, result) = decode(&stream);
    assert_eq!(result, Err(Failure::AnswerMalformed));
    assert_eq!(decoder.count_output_tokens(), 1);
}

#[test]
fn a_malformed_first_chunk_is_not_content() {
    let (decoder, _, _) = decode("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],oops\n\n");
    assert!(!decoder.has_content());
}

#[test]
fn text_beyond_the_bound_is_counted_by_its_length() {
    let piece = "a ".repeat(32 * 1024);
    let stream: String = (0..8).map(|_| text(&piece)).collect();
    let (mut decoder, _, _) = decode(&stream);
    let kept = tokens::count(&piece.repeat(4));
    assert_eq!(decoder.count_output_tokens(), kept + 4 * 64 * 1024 / 4);
}

#[test]
fn reports_that_grow_with_the_text_are_believed() {
    let one = r#"[{"index":0,"delta":{"content":"x"}}]"#;
    let stream = usage(one, 5, 1) + &usage(one, 5, 2) + &usage("[]", 5, 3) + DONE;
    let (decoder, _, _) = decode(&stream);
    assert_eq!((decoder.usage().unwrap().output_tokens(), decoder.usage_suspect()), (3, false));
}

#[test]
fn of_two_final_reports_the_larger_is_believed_and_flagged() {
    for (first, second) in [(3, 9), (9, 3)] {
        let stream = text("a") + &usage("[]", 5, first) + &usage("[]", 5, second) + DONE;
        let (decoder, _, _) = decode(&stream);
        assert_eq!((decoder.usage().unwrap().output_tokens(), decoder.usage_suspect()), (9, true));
    }
    let (decoder, _, _) = decode(&(text("a") + &usage("[]", 5, 3) + &usage("[]", 5, 3) + DONE));
    assert!(!decoder.usage_suspect());
}

#[test]
fn zeros_next_to_content_are_no_report() {
    let (decoder, _, _) = decode(&(text("a") + &usage("[]", 0, 0) + DONE));
    assert_eq!((decoder.usage(), decoder.usage_suspect()), (None, true));
    let (decoder, _, _) = decode(&(text("a") + &usage("[]", 5, 0) + DONE));
    assert!(decoder.usage().is_some() && decoder.usage_suspect());
}

#[test]
fn an_empty_payload_is_dropped() {
    let (_, out, result) = decode(&format!("data:\n\ndata: \n\n{}{DONE}", text("a")));
    assert_eq!((result, out.concat()), (Ok(()), text("a").into_bytes()));
}

proptest! {
    #[test]
    fn any_split_gives_the_same_bytes_and_the_same_facts(
        parts in prop::collection::vec(prop_oneof![
            Just(text("héllo")), Just(text("")),
            Just(usage("[]", 5, 3)), Just(usage("[{}]", 5, 2)),
            Just(": comment\n\n".to_owned()),
            Just("data: {\"choices\":[],\"usage\":null}\r\n\r\n".to_owned()),
            Just("data: {\"a\":1,\ndata: \"usage\":null}\n\n".to_owned()), Just(DONE.to_owned()),
            Just("data: {\"error\":{\"code\":\"slow_down\"}}\n\n".to_owned()),
            Just("data: {\n\n".to_owned()),
        ], 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        include_usage in any::<bool>(),
    ) {
        let stream = parts.concat();
        let run = |cuts: &[usize]| {
            let mut decoder = Passing::new(include_usage, (0, 1));
            let (mut out, mut start, mut result) = (Vec::new(), 0, Ok(()));
            for end in cuts.iter().copied().chain([stream.len()]) {
                let piece = Bytes::copy_from_slice(&stream.as_bytes()[start..end]);
                result = result.and_then(|()| decoder.push(piece, &mut out));
                start = end;
            }
            let result = result.and_then(|()| decoder.end(&mut out));
            let report = (decoder.usage(), decoder.usage_suspect());
            let state = (decoder.has_content(), decoder.is_done());
            (out.concat(), result, report, state, decoder.count_output_tokens())
        };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(run(&cuts), run(&[]));
    }
}

#[test]
fn a_report_beside_content_is_a_running_one_until_the_reason_to_end() {
    let running = |stream: &str| decode(stream).0.usage_is_running();
    let beside = usage(r#"[{"delta":{"content":"a"},"finish_reason":null}]"#, 9, 1);
    let last = usage(r#"[{"delta":{},"finish_reason":"stop"}]"#, 9, 2);
    let after = format!("{last}{}", usage(r#"[{"delta":{}}]"#, 9, 2));
    let own = usage("[]", 9, 2);
    assert!(running(&beside) && running(&format!("{beside}{}", text("b"))));
    assert!(!running(&text("a")));
    for final_word in [&last, &after, &own] {
        assert!(!running(&format!("{beside}{final_word}")), "{final_word}");
    }
    let mut two = Passing::new(false, (0, 2));
    two.push(format!("{beside}{last}").into(), &mut vec![]).unwrap();
    assert!(two.usage_is_running(), "the other choice goes on");
    two.push(last.into(), &mut vec![]).unwrap();
    assert!(!two.usage_is_running());
    let both = usage(r#"[{"finish_reason":"stop"},{"index":1,"finish_reason":"stop"}]"#, 9, 2);
    let mut two = Passing::new(false, (0, 2));
    two.push(both.into(), &mut vec![]).unwrap();
    assert!(!two.usage_is_running());
    let since = |stream: &str| decode(stream).0.count_since_report();
    assert_eq!((since(&beside), since(&format!("{beside}{}", text("b")))), (0, 1));
    assert_eq!(since(&format!("{}{beside}", text("b"))), 0);
}
