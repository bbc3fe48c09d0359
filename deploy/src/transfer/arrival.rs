//! Layers that arrive: what is here of them already, what is asked for, and how both become layers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Read};

use engine::engine::Engine;
use engine::id::DiffId;
use engine::image::Reference;
use engine::layer::{Entry, LayerError, Sum, Supply, Table};

use crate::protocol::Channel;
use crate::transfer::arrival::intake::Intake;
use crate::transfer::arrival::tables::receive_tables;
use crate::transfer::chunk::{ChunkId, ChunkList, Chunker, Lengths};
use crate::transfer::delta;
use crate::transfer::failure::{TransferError, here};
use crate::transfer::flow::Inflow;
use crate::transfer::goods::sum_of;
use crate::transfer::message::{Answer, Change, Lacking, Wants, Way, receive_part};
use crate::transfer::receiver::GaveUp;
use crate::transfer::spool::{Content, Spool};
use crate::transfer::stock::Stock;

mod intake;
mod tables;

/// The layers on their way.
pub(super) struct Arrivals<'a> {
    channel: &'a mut Channel,
    engine: &'a Engine,
    stock: Stock,
    layers: Vec<Arrival>,
}

/// One layer on its way.
struct Arrival {
    diff: DiffId,
    spool: Spool,
    table: Table,
    entries: Vec<Entry>,
    is_whole: bool,
}

/// The smallest file that is worth a question about its old version.
const LEAST_CHANGED: u64 = 16 << 10;

/// Lacking bytes that take longer to send than it takes to read the tables of all layers here.
const WORTH_A_SEARCH: u64 = 256 << 10;

/// What is asked for and how it comes.
struct Plan {
    wants: Wants,
    /// For each changed file.
    ways: Vec<Coming>,
}

/// How a changed file comes.
enum Coming {
    Whole,
    Delta,
    Chunks(Chunks),
}

/// A changed file in chunks.
struct Chunks {
    list: ChunkList,
    /// Those that are here already.
    places: HashMap<ChunkId, (ChunkPlace, usize)>,
    /// What had arrived of it before.
    begun: Option<Content>,
}

/// Where the bytes of a chunk are that need not be sent.
#[derive(Clone, Copy)]
enum ChunkPlace {
    Old(u64),
    Begun(u64),
}

// === impl Arrivals ===

impl<'a> Arrivals<'a> {
    /// Says which layers are lacking and gets their tables, of which no part comes that is here.
    pub(super) fn begin(
        channel: &'a mut Channel,
        engine: &'a Engine,
        lacking: &[DiffId],
        names: &[Reference],
        offered: &BTreeSet<DiffId>,
    ) -> Result<Self, GaveUp> {
        let stock = Stock::of(engine, names, offered)?;
        let mut spools = Vec::new();
        let mut answer = Vec::new();
        for diff in lacking {
            let spool =
                Spool::open(&engine.root().transfer(diff)).map_err(here("open what has arrived before"))?;
            let table = spool.table();
            answer.push(Lacking { diff: diff.clone(), has_table: table.is_some() });
            spools.push((diff.clone(), spool, table));
        }
        channel.send(&Answer::Lacks(answer))?;
        receive_part(channel)?;
        let mut parts = Vec::new();
        for (.., table) in &spools {
            parts.push(if table.is_none() { Some(receive_part(channel)?) } else { None });
        }
        channel.receive::<()>()?;
        receive_tables(channel, &stock, &mut spools, &parts)?;
        let mut layers = Vec::new();
        for (diff, spool, table) in spools {
            let table = table.ok_or_else(|| TransferError::Refused("no table of a layer".to_owned()))?;
            let entries = table.entries().map_err(here("read the table of a layer"))?;
            layers.push(Arrival { diff, spool, table, entries, is_whole: false });
        }
        Ok(Self { channel, engine, stock, layers })
    }

    /// Gets the contents and puts the layers together.
    pub(super) fn run(mut self) -> Result<(), GaveUp> {
        self.search()?;
        loop {
            let plan = self.plan()?;
            let is_complete = plan.wants.is_empty() || self.receive(&plan)?;
            if is_complete && self.rebuild()? {
                break;
            }
        }
        for layer in self.layers {
            layer.spool.remove().map_err(here("remove what has become a layer"))?;
        }
        Ok(())
    }

    /// Looks further for what is lacking, if that is much.
    fn search(&mut self) -> Result<(), TransferError> {
        let has_arrived =
            |entry: &Entry| self.layers.iter().any(|layer| layer.spool.length(&entry.sum) == entry.size);
        let lacking = self.layers.iter().flat_map(|layer| &layer.entries);
        let lacking: HashMap<Sum, u64> = lacking
            .filter(|entry| !self.stock.has(&entry.sum) && !has_arrived(entry))
            .map(|entry| (entry.sum, entry.size))
            .collect();
        if lacking.values().sum::<u64>() < WORTH_A_SEARCH {
            return Ok(());
        }
        self.stock.search(self.engine, &lacking.into_keys().collect())
    }

    /// Finds out what is lacking, asks for it, and hears how changed files come.
    fn plan(&mut self) -> Result<Plan, GaveUp> {
        let wants = self.wants();
        let mut ways = Vec::new();
        if wants.is_empty() {
            return Ok(Plan { wants, ways });
        }
        self.channel.send(&Answer::Wants(wants.clone()))?;
        if !wants.changed.is_empty() {
            let part = receive_part(self.channel)?;
            self.channel.receive::<()>()?;
            ways = self.read_ways(&wants, &part)?;
            let (mut needed, mut before) = (Vec::new(), 0u32);
            let lists = ways
                .iter()
                .filter_map(|way| if let Coming::Chunks(chunks) = way { Some(chunks) } else { None });
            let mut is_asked = false;
            for chunks in lists {
                is_asked = true;
                let numbers = (before..).zip(chunks.list.iter());
                needed
                    .extend(numbers.filter(|(_, (_, id))| !chunks.places.contains_key(id)).map(|(at, _)| at));
                before += u32::try_from(chunks.list.len()).unwrap_or(u32::MAX);
            }
            if is_asked {
                self.channel.send(&Answer::Needs(needed.into_iter().collect()))?;
            }
        }
        Ok(Plan { wants, ways })
    }

    fn wants(&self) -> Wants {
        let mut wants = Wants::default();
        let mut new = Vec::new();
        let mut seen = HashSet::new();
        let all = self.layers.iter().flat_map(|layer| layer.entries.iter().map(move |entry| (layer, entry)));
        for (number, (layer, entry)) in (0u32..).zip(all) {
            let arrived = self.layers.iter().map(|other| other.spool.length(&entry.sum)).max().unwrap_or(0);
            let is_here = layer.is_whole || arrived == entry.size || self.stock.has(&entry.sum);
            if is_here || !seen.insert(entry.sum) {
                continue;
            }
            let begun = layer.spool.length(&entry.sum);
            match self.stock.old(&entry.path).filter(|_| entry.size >= LEAST_CHANGED) {
                Some((old, size)) if size >= LEAST_CHANGED => {
                    let arrived = layer.spool.length(&delta::key(&old, &entry.sum));
                    wants.changed.push(Change { number, old, arrived });
                }
                _ if begun > 0 => wants.begun.push((number, begun)),
                _ => new.push(number),
            }
        }
        wants.new = new.into_iter().collect();
        wants
    }

    fn read_ways(&self, wants: &Wants, part: &[u8]) -> Result<Vec<Coming>, TransferError> {
        let refused = || TransferError::Refused("a list of changed files that makes no sense".to_owned());
        let mut rest = part;
        let mut ways = Vec::new();
        for Change { number, old, .. } in &wants.changed {
            let (way, after) = rest.split_first().ok_or_else(refused)?;
            rest = after;
            ways.push(match Way::of(*way).ok_or_else(refused)? {
                Way::Whole => Coming::Whole,
                Way::Delta => Coming::Delta,
                Way::Chunks => {
                    let (layer, entry) = self.entry(*number)?;
                    let list =
                        ChunkList::read(&mut rest, Lengths::of_file(entry.size)).ok_or_else(refused)?;
                    if list.total() != entry.size {
                        return Err(refused());
                    }
                    let places =
                        self.chunk_places(*number, old).map_err(here("read an old version of a file"))?;
                    let begun = self.layers[layer].spool.content(&entry.sum);
                    Coming::Chunks(Chunks { list, places, begun })
                }
            });
        }
        if rest.is_empty() { Ok(ways) } else { Err(refused()) }
    }

    /// The chunks of a changed file that are here: in its old version, and in what has arrived of the new one.
    fn chunk_places(&self, number: u32, old: &Sum) -> io::Result<HashMap<ChunkId, (ChunkPlace, usize)>> {
        let (layer, entry) = self.entry(number).map_err(io::Error::other)?;
        let lengths = Lengths::of_file(entry.size);
        let mut places = HashMap::new();
        let mut add = |reader: &mut dyn Read, place: fn(u64) -> ChunkPlace| {
            let mut chunker = Chunker::new(reader, lengths);
            let mut offset = 0;
            while let Some(chunk) = chunker.next()? {
                places.insert(ChunkId::of(&Sum::of(chunk)), (place(offset), chunk.len()));
                offset += chunk.len() as u64;
            }
            Ok::<_, io::Error>(())
        };
        if let Some(file) = self.stock.open_sum(old) {
            add(&mut file?, ChunkPlace::Old)?;
        }
        let spool = &self.layers[layer].spool;
        if let Some(begun) = spool.content(&entry.sum) {
            add(&mut spool.read(begun), ChunkPlace::Begun)?;
        }
        Ok(places)
    }

    /// Receives what was asked for. False when that showed old versions here to be damaged, or a difference that had begun
    /// to arrive to be another one now, so that something is still lacking.
    fn receive(&mut self, plan: &Plan) -> Result<bool, GaveUp> {
        let mut inflow = Inflow::new(self.channel)?;
        let mut intake = Intake::new(&self.stock, &mut self.layers, &mut inflow);
        let received = intake.take(plan);
        let (damaged, is_stale) = (intake.damaged, intake.is_stale);
        // Also what came before a cut, which is why it is kept.
        let flushed = self.layers.iter_mut().try_for_each(|layer| layer.spool.flush());
        match received.and_then(|()| flushed.map_err(here("keep what arrives"))) {
            Ok(()) => inflow.finish()?,
            Err(error) => return Err(GaveUp::Aloud(inflow.stop(error))),
        }
        self.stock.forget(&damaged);
        Ok(damaged.is_empty() && !is_stale)
    }

    /// Puts the layers together. False when that showed files here to be damaged, which are to be sent then.
    fn rebuild(&mut self) -> Result<bool, GaveUp> {
        let store = self.engine.layers();
        let mut damaged = HashSet::new();
        for at in 0..self.layers.len() {
            if self.layers[at].is_whole {
                continue;
            }
            let layer = &self.layers[at];
            let shelf = Shelf { stock: &self.stock, layers: &self.layers };
            match store.rebuild(&layer.diff, &layer.table, &shelf) {
                Ok(_) => self.layers[at].is_whole = true,
                Err(LayerError::WrongDiff { expected, found }) => {
                    let found_damaged = self.damaged(at);
                    if found_damaged.is_empty() {
                        self.discard();
                        let error = LayerError::WrongDiff { expected, found };
                        return Err(here("verify a layer")(error).into());
                    }
                    damaged.extend(found_damaged);
                }
                Err(error) => return Err(here("unpack a layer")(error).into()),
            }
        }
        self.stock.forget(&damaged);
        Ok(damaged.is_empty())
    }

    /// The contents that a layer takes from files here that do not have them.
    fn damaged(&self, layer: usize) -> HashSet<Sum> {
        let entries = self.layers[layer].entries.iter();
        let is_damaged = |entry: &&Entry| {
            self.stock
                .open(entry)
                .is_some_and(|file| !file.and_then(sum_of).is_ok_and(|sum| sum == entry.sum))
        };
        entries.filter(is_damaged).map(|entry| entry.sum).collect()
    }

    /// Removes what has arrived, which is not what it should be.
    fn discard(&mut self) {
        for layer in std::mem::take(&mut self.layers) {
            // The next attempt fails on it again and says so; the reason for this failure is another.
            let _ = layer.spool.remove();
        }
    }

    fn entry(&self, number: u32) -> Result<(usize, &Entry), TransferError> {
        find(&self.layers, number)
    }
}

fn find(layers: &[Arrival], number: u32) -> Result<(usize, &Entry), TransferError> {
    let mut at = usize::try_from(number).unwrap_or(usize::MAX);
    for (layer, arrival) in layers.iter().enumerate() {
        match arrival.entries.get(at) {
            Some(entry) => return Ok((layer, entry)),
            None => at -= arrival.entries.len(),
        }
    }
    Err(TransferError::Refused(format!("content {number}, which does not exist")))
}

/// What a layer is put together from.
struct Shelf<'a> {
    stock: &'a Stock,
    layers: &'a [Arrival],
}

impl Supply for Shelf<'_> {
    fn donor(&self, entry: &Entry) -> Option<&DiffId> {
        self.stock.donor(entry)
    }

    fn open(&self, _: usize, entry: &Entry) -> io::Result<Box<dyn Read + Send + '_>> {
        if let Some(file) = self.stock.open(entry) {
            return Ok(Box::new(file?));
        }
        let kept = self.layers.iter().find_map(|layer| {
            let content = layer.spool.content(&entry.sum)?;
            (layer.spool.length(&entry.sum) == entry.size).then(|| layer.spool.read(content))
        });
        match kept {
            Some(reader) => Ok(Box::new(reader)),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "a content has not arrived")),
        }
    }
}
