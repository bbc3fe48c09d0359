//! Questions and answers on the wire (RFC 1035). Pure: bytes in, bytes out.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// How long an answer may be kept, in seconds. The next container may have the address sooner than docker's 600
/// seconds have passed.
const TIME_TO_LIVE: u32 = 5;
/// What every client takes over UDP.
const PLAIN_LIMIT: u16 = 512;
/// The most that is sent over UDP, whatever the client says it takes.
const UDP_LIMIT: u16 = 4096;
/// The shortest message: a header.
const HEADER: usize = 12;

/// What came in.
#[derive(Debug)]
pub(super) enum Incoming {
    /// One question of class IN.
    Question(Box<Question>),
    /// Something to forward if that is possible: it asks for nothing that containers have.
    Foreign(Box<Question>),
    /// A request that cannot be read: this is the answer.
    Malformed(Vec<u8>),
    /// No request at all.
    Nothing,
}

/// A question and the request it came in.
#[derive(Debug)]
pub(super) struct Question {
    request: Message,
    query: Query,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Addresses of a name, which is in lower case and without a dot at its end.
    Addresses { name: String, ipv4: bool, ipv6: bool },
    /// Something else about a name.
    Other { name: String },
    /// The names of an address.
    Names(IpAddr),
}

/// Reads what came in.
pub(super) fn read(bytes: &[u8]) -> Incoming {
    let Ok(request) = Message::from_vec(bytes) else {
        let is_request = bytes.len() >= HEADER && bytes[2] & 0x80 == 0;
        return if is_request {
            let id = u16::from_be_bytes([bytes[0], bytes[1]]);
            let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            error.to_vec().map_or(Incoming::Nothing, Incoming::Malformed)
        } else {
            Incoming::Nothing
        };
    };
    if request.metadata.message_type != MessageType::Query {
        return Incoming::Nothing;
    }
    let [query] = request.queries.as_slice() else {
        let error = Message::error_msg(request.metadata.id, request.metadata.op_code, ResponseCode::FormErr);
        return error.to_vec().map_or(Incoming::Nothing, Incoming::Malformed);
    };
    let is_ours = request.metadata.op_code == OpCode::Query && query.query_class() == DNSClass::IN;
    let query = query.clone();
    let question = Box::new(Question { request, query });
    if is_ours { Incoming::Question(question) } else { Incoming::Foreign(question) }
}

/// Whether this is a reply to the request with these bytes, whose id on the wire was this one.
pub(super) fn is_reply_to(reply: &[u8], request: &[u8], id: u16) -> bool {
    let is_response = reply.len() >= HEADER && reply[2] & 0x80 != 0;
    if !is_response || reply[..2] != id.to_be_bytes() {
        return false;
    }
    let (Ok(reply), Ok(request)) = (Message::from_vec(reply), Message::from_vec(request)) else {
        return false;
    };
    // Some servers leave the question out of an error.
    reply.queries.is_empty() || reply.queries == request.queries
}

/// Whether a server says that it cannot answer, so that the next one is worth a try.
pub(super) fn is_refusal(reply: &[u8]) -> bool {
    const SERVER_FAILURE: u8 = 2;
    const NOT_IMPLEMENTED: u8 = 4;
    const REFUSED: u8 = 5;
    reply.get(3).is_some_and(|flags| matches!(flags & 0xf, SERVER_FAILURE | NOT_IMPLEMENTED | REFUSED))
}

/// The same message under another id.
pub(super) fn with_id(bytes: &[u8], id: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(place) = bytes.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
    bytes
}

// === impl Question ===

impl Question {
    /// The id that the client knows it by.
    pub(super) fn id(&self) -> u16 {
        self.request.metadata.id
    }

    /// What is asked for.
    pub(super) fn wanted(&self) -> Wanted {
        let name = plain_name(self.query.name());
        match self.query.query_type() {
            RecordType::A => Wanted::Addresses { name, ipv4: true, ipv6: false },
            RecordType::AAAA => Wanted::Addresses { name, ipv4: false, ipv6: true },
            RecordType::ANY => Wanted::Addresses { name, ipv4: true, ipv6: true },
            RecordType::PTR => match self.query.name().parse_arpa_name() {
                Ok(net) if net.prefix_len() == net.max_prefix_len() => Wanted::Names(net.addr()),
                _ => Wanted::Other { name },
            },
            _ => Wanted::Other { name },
        }
    }

    /// The answer that gives these addresses; none is an answer too.
    pub(super) fn addresses(&self, addresses: &[IpAddr]) -> Message {
        let data = addresses.iter().map(|address| match address {
            IpAddr::V4(address) => RData::A(A(*address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
        });
        self.answer(data)
    }

    /// The answer that gives these names.
    pub(super) fn names(&self, names: &[String]) -> Message {
        self.answer(
            names
                .iter()
                .filter_map(|name| Name::from_ascii(format!("{name}.")).ok())
                .map(|name| RData::PTR(PTR(name))),
        )
    }

    /// The answer that says why there is none.
    pub(super) fn refusal(&self, code: ResponseCode) -> Message {
        let mut message = self.answer(std::iter::empty());
        message.metadata.response_code = code;
        message
    }

    /// The bytes of an answer over UDP: what is too long for the client is left out, and it is told so.
    pub(super) fn datagram(&self, mut answer: Message) -> Vec<u8> {
        let limit =
            self.request.edns.as_ref().map_or(PLAIN_LIMIT, Edns::max_payload).clamp(PLAIN_LIMIT, UDP_LIMIT);
        let bytes = answer.to_vec().unwrap_or_default();
        if bytes.len() <= usize::from(limit) {
            return bytes;
        }
        answer.answers.clear();
        answer.metadata.truncation = true;
        answer.to_vec().unwrap_or_default()
    }

    /// How long an answer over UDP may be.
    pub(super) fn takes(&self, length: usize) -> bool {
        let limit =
            self.request.edns.as_ref().map_or(PLAIN_LIMIT, Edns::max_payload).clamp(PLAIN_LIMIT, UDP_LIMIT);
        length <= usize::from(limit)
    }

    fn answer(&self, data: impl Iterator<Item = RData>) -> Message {
        let mut message = Message::response(self.id(), self.request.metadata.op_code);
        message.metadata.recursion_desired = self.request.metadata.recursion_desired;
        message.metadata.recursion_available = true;
        message.add_query(self.query.clone());
        // Under the name as it was asked for, in its case.
        message
            .add_answers(data.map(|data| Record::from_rdata(self.query.name().clone(), TIME_TO_LIVE, data)));
        if self.request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_LIMIT);
            message.set_edns(edns);
        }
        message
    }
}

fn plain_name(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(77, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn question(name: &str, kind: RecordType) -> Box<Question> {
        match read(&request(name, kind)) {
            Incoming::Question(question) => question,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_says_what_is_wanted() {
        assert_eq!(
            question("DB.Example.", RecordType::AAAA).wanted(),
            Wanted::Addresses { name: "db.example".to_owned(), ipv4: false, ipv6: true }
        );
        assert_eq!(
            question("2.0.18.172.in-addr.arpa.", RecordType::PTR).wanted(),
            Wanted::Names("172.18.0.2".parse().unwrap())
        );
        assert_eq!(
            question("172.in-addr.arpa.", RecordType::PTR).wanted(),
            Wanted::Other { name: "172.in-addr.arpa".to_owned() }
        );
        assert_eq!(question("db", RecordType::MX).wanted(), Wanted::Other { name: "db".to_owned() });
    }

    #[test]
    fn an_answer_that_is_too_long_says_so() {
        let question = question("many", RecordType::A);
        let addresses: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let short = Message::from_vec(&question.datagram(question.addresses(&addresses))).unwrap();
        assert!(short.metadata.truncation && short.answers.is_empty());
        let few = Message::from_vec(&question.datagram(question.addresses(&addresses[..3]))).unwrap();
        assert_eq!((few.metadata.truncation, few.answers.len(), few.metadata.id), (false, 3, 77));
    }

    #[test]
    fn what_cannot_be_read_harms_nobody() {
        let mut seed = 1u64;
        let valid = request("a.rather.long.name.with.labels", RecordType::A);
        for length in 0..600 {
            let mut bytes = if length % 2 == 0 { valid.clone() } else { vec![0; length] };
            for byte in &mut bytes {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if length % 2 == 1 || seed >> 60 == 0 {
                    *byte = u8::try_from(seed >> 56).unwrap();
                }
            }
            if let Incoming::Question(question) = read(&bytes) {
                question.wanted();
                question.datagram(question.refusal(ResponseCode::NXDomain));
            }
        }
        // A name that points at itself.
        let mut looped = request("x", RecordType::A)[..HEADER].to_vec();
        looped.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        assert!(matches!(read(&looped), Incoming::Malformed(_)));
    }
}
