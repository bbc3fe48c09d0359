//! The sender's part of the conversation: it offers, and answers what it is asked for.

use std::collections::HashSet;
use std::io::Read;

use engine::engine::Engine;
use engine::id::{DiffId, ImageId};
use engine::image::Reference;
use engine::layer::Sum;

use crate::protocol::Channel;
use crate::transfer::chunk::{ChunkList, Chunker, Lengths};
use crate::transfer::delta;
use crate::transfer::failure::{TransferError, here};
use crate::transfer::flow::Outflow;
use crate::transfer::goods::{Goods, read_whole, sum_of};
use crate::transfer::message::{
    Answer, Change, Lacking, Offer, OfferedImage, Ranges, Wants, Way, refuse, send_part,
};
use crate::transfer::stock::Stock;
use crate::transfer::{Progress, Sent, SentImage};

/// One transfer, as its sender sees it.
pub(super) struct Sender<'a> {
    pub(super) channel: &'a mut Channel,
    pub(super) engine: &'a Engine,
    pub(super) progress: &'a dyn Fn(Progress),
}

/// A changed file and how it is sent.
enum Changed {
    Whole(usize),
    /// The difference to an old version that is here, of which so much has arrived before.
    Delta(usize, Sum, u64),
    Chunks(usize, ChunkList),
}

/// All changed files, and where their old versions are.
#[derive(Default)]
struct Plan {
    changed: Vec<Changed>,
    stock: Stock,
}

/// Compression of what is small and sent at once.
const LEVEL: i32 = 9;

/// The smallest file of which chunks are listed; what is smaller is sent as it is.
const LEAST_CHUNKED: u64 = 64 << 10;

/// Lists of chunks end here, so that all of them fit into a frame; they are those of some gigabytes.
const LONGEST_LISTS: usize = 4 << 20;

// === impl Sender ===

impl Sender<'_> {
    pub(super) fn run(
        &mut self,
        images: &[ImageId],
        names: &[(ImageId, Reference)],
    ) -> Result<Sent, TransferError> {
        let before = (self.channel.sent(), self.channel.received());
        // The receiver waits for an offer, and is told why there is none.
        let hold = self.engine.layers().hold().map_err(here("keep the layers"));
        let offer = hold.and_then(|hold| Ok((hold, self.offer(images, names)?)));
        let (_hold, (offer, documents, mut sent)) = offer.map_err(|error| refuse(self.channel, error))?;
        send_part(self.channel, &documents)?;
        self.channel.send(&offer)?;
        let mut goods = None;
        loop {
            match (self.answer()?, &goods) {
                (Answer::Done(_), _) => break,
                (Answer::Lacks(lacking), None) => {
                    let diffs: Vec<DiffId> = lacking.iter().map(|lacking| lacking.diff.clone()).collect();
                    // What else is in this store is nobody's business there.
                    if let Some(other) = diffs.iter().find(|diff| !sent.offers(diff)) {
                        let what = format!("a wish for the layer {}, which was not offered", other.short());
                        return Err(refuse(self.channel, TransferError::Refused(what)));
                    }
                    sent.images.iter_mut().for_each(|image| image.account(&diffs));
                    (self.progress)(Progress::Compared { lacking: diffs.len() });
                    goods = Some(self.outline(lacking)?);
                }
                (Answer::Needs(chunks), Some(goods)) => self.table_chunks(goods, &chunks)?,
                (Answer::Wants(wants), Some(goods)) => self.contents(goods, &wants)?,
                (other, _) => return Err(TransferError::Refused(format!("{other:?} where it has no place"))),
            }
        }
        sent.bytes_out = self.channel.sent() - before.0;
        sent.bytes_in = self.channel.received() - before.1;
        Ok(sent)
    }

    /// What there is to be sent, with all documents, compressed.
    fn offer(
        &self,
        images: &[ImageId],
        names: &[(ImageId, Reference)],
    ) -> Result<(Offer, Vec<u8>, Sent), TransferError> {
        let store = self.engine.images();
        let mut documents = Vec::new();
        let mut offered = Vec::new();
        let mut sent = Sent::default();
        for id in images {
            let image = store.get(id.as_str()).map_err(here("find the image"))?;
            let config = store.raw_config(id).map_err(here("read the image's configuration"))?;
            let manifest = store.manifest(id).map_err(here("read the image's manifest"))?;
            documents.extend_from_slice(&config);
            documents.extend_from_slice(manifest.as_deref().unwrap_or_default());
            offered.push(OfferedImage {
                id: id.clone(),
                config: config.len(),
                manifest: manifest.map(|manifest| manifest.len()),
            });
            sent.images.push(SentImage::of(&image, &self.engine.layers())?);
        }
        let packed = zstd::bulk::compress(&documents, LEVEL).map_err(here("compress the offer"))?;
        let offer = Offer { images: offered, names: names.to_vec(), length: documents.len() };
        Ok((offer, packed, sent))
    }

    /// Says that there is something to give, or why not, and lists the chunks of the tables that are lacking.
    fn outline(&mut self, lacking: Vec<Lacking>) -> Result<Goods, TransferError> {
        let goods = Goods::of(self.engine, lacking).and_then(|goods| Ok((goods.outlines()?, goods)));
        let (outlines, goods) = goods.map_err(|error| refuse(self.channel, error))?;
        for part in [Vec::new()].into_iter().chain(outlines) {
            send_part(self.channel, &part)?;
        }
        self.channel.send(&())?;
        Ok(goods)
    }

    fn table_chunks(&mut self, goods: &Goods, wanted: &Ranges) -> Result<(), TransferError> {
        let mut out = Outflow::new(self.channel)?;
        let sent = goods.chunks().and_then(|chunks| {
            for number in wanted.iter() {
                let chunk = chunks.get(number).ok_or_else(|| no_chunk(number))?;
                out.write(chunk)?;
            }
            Ok(())
        });
        match sent {
            Ok(()) => out.finish(),
            Err(error) => Err(out.fail(error)),
        }
    }

    fn contents(&mut self, goods: &Goods, wants: &Wants) -> Result<(), TransferError> {
        let mut plan = Plan::default();
        let mut chunks = Ranges::default();
        if !wants.changed.is_empty() {
            let planned = self.plan(goods, &wants.changed);
            let (planned, part) = planned.map_err(|error| refuse(self.channel, error))?;
            send_part(self.channel, &part)?;
            self.channel.send(&())?;
            if planned.changed.iter().any(|changed| matches!(changed, Changed::Chunks(..))) {
                chunks = match self.answer()? {
                    Answer::Needs(chunks) => chunks,
                    other => return Err(TransferError::Refused(format!("{other:?} instead of chunks"))),
                };
            }
            plan = planned;
        }
        let mut load = Load { out: Outflow::new(self.channel)?, progress: self.progress, done: 0, of: 0 };
        match load.fill(goods, &plan, &chunks, wants) {
            Ok(()) => load.out.finish(),
            Err(error) => Err(load.out.fail(error)),
        }?;
        (self.progress)(Progress::Unpacking);
        Ok(())
    }

    /// How each changed file is best sent, and the part that says so.
    fn plan(&self, goods: &Goods, wanted: &[Change]) -> Result<(Plan, Vec<u8>), TransferError> {
        let olds: HashSet<Sum> = wanted.iter().map(|change| change.old).collect();
        let mut plan = Plan::default();
        plan.stock.search(self.engine, &olds)?;
        let mut part = Vec::new();
        for change in wanted {
            let changed = changed(goods, &plan.stock, change, part.len() < LONGEST_LISTS)?;
            match &changed {
                Changed::Whole(_) => part.push(Way::Whole as u8),
                Changed::Delta(..) => part.push(Way::Delta as u8),
                Changed::Chunks(_, list) => {
                    part.push(Way::Chunks as u8);
                    list.write(&mut part);
                }
            }
            plan.changed.push(changed);
        }
        Ok((plan, part))
    }

    fn answer(&mut self) -> Result<Answer, TransferError> {
        match self.channel.receive()? {
            Answer::Failed(failure) => Err(TransferError::There(failure)),
            other => Ok(other),
        }
    }
}

fn changed(goods: &Goods, stock: &Stock, change: &Change, may_list: bool) -> Result<Changed, TransferError> {
    let number = usize::try_from(change.number).unwrap_or(usize::MAX);
    let size = goods.entry(number)?.size;
    if let Some(Ok(file)) = stock.open_sum(&change.old)
        && file.metadata().is_ok_and(|found| found.len() <= delta::LARGEST)
        && size <= delta::LARGEST
        // Of a damaged one the difference would be of no use there.
        && sum_of(file).is_ok_and(|sum| sum == change.old)
    {
        return Ok(Changed::Delta(number, change.old, change.arrived));
    }
    if size < LEAST_CHUNKED || !may_list {
        return Ok(Changed::Whole(number));
    }
    let list = ChunkList::of(goods.open(number, 0)?, Lengths::of_file(size));
    Ok(Changed::Chunks(number, list.map_err(here("cut a file of an image"))?))
}

fn no_chunk(number: usize) -> TransferError {
    TransferError::Refused(format!("a wish for chunk {number}, which was not listed"))
}

/// The stream of contents.
struct Load<'a> {
    out: Outflow<'a>,
    progress: &'a dyn Fn(Progress),
    done: u64,
    of: u64,
}

impl Load<'_> {
    fn fill(
        &mut self,
        goods: &Goods,
        plan: &Plan,
        chunks: &Ranges,
        wants: &Wants,
    ) -> Result<(), TransferError> {
        self.of = goods.size(wants.new.iter())?;
        for (number, from) in &wants.begun {
            let number = usize::try_from(*number).unwrap_or(usize::MAX);
            self.of += goods.entry(number)?.size.saturating_sub(*from);
        }
        for changed in &plan.changed {
            let (Changed::Whole(number) | Changed::Delta(number, ..) | Changed::Chunks(number, _)) = changed;
            self.of += goods.entry(*number)?.size;
        }
        let wanted: HashSet<usize> = chunks.iter().collect();
        let mut before = 0;
        for changed in &plan.changed {
            match changed {
                Changed::Whole(number) => self.content(goods, *number, 0)?,
                Changed::Delta(number, old, arrived) => {
                    self.delta(goods, *number, &plan.stock, old, *arrived)?;
                }
                Changed::Chunks(number, list) => {
                    self.chunks(goods, *number, list, before, &wanted)?;
                    before += list.len();
                }
            }
        }
        for (number, from) in &wants.begun {
            self.content(goods, usize::try_from(*number).unwrap_or(usize::MAX), *from)?;
        }
        wants.new.iter().try_for_each(|number| self.content(goods, number, 0))
    }

    fn content(&mut self, goods: &Goods, number: usize, from: u64) -> Result<(), TransferError> {
        let entry = goods.entry(number)?;
        let mut left = entry.size.saturating_sub(from);
        let mut reader = goods.open(number, from)?;
        let mut buffer = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(256 << 10)];
        while left > 0 {
            let name = String::from_utf8_lossy(&entry.path);
            let read = reader.read(&mut buffer).map_err(here(format!("read {name:?} of an image")))?;
            if read == 0 {
                let reason = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(here(format!("read {name:?} of an image, which has become shorter"))(reason));
            }
            self.write(&buffer[..read])?;
            left -= read as u64;
        }
        Ok(())
    }

    /// The difference between two versions of a file, from where it had come before, after its length.
    fn delta(
        &mut self,
        goods: &Goods,
        number: usize,
        stock: &Stock,
        old: &Sum,
        arrived: u64,
    ) -> Result<(), TransferError> {
        let name = String::from_utf8_lossy(&goods.entry(number)?.path);
        let step = || here(format!("compare {name:?} with its old version"));
        let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let old = stock.open_sum(old).ok_or_else(gone).flatten().and_then(read_whole).map_err(step())?;
        let new = read_whole(goods.open(number, 0)?).map_err(step())?;
        let difference = delta::difference(&old, &new).map_err(step())?;
        let length = difference.len() as u64;
        let from = delta::goes_on(arrived, length);
        // Most of the file need not be sent.
        self.of = (self.of + length - from).saturating_sub(new.len() as u64);
        self.write(&length.to_le_bytes())?;
        if length >= delta::LEAST_KEPT {
            self.write(Sum::of(&difference).as_bytes())?;
        }
        self.write(difference.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default())
    }

    fn chunks(
        &mut self,
        goods: &Goods,
        number: usize,
        list: &ChunkList,
        before: usize,
        wanted: &HashSet<usize>,
    ) -> Result<(), TransferError> {
        let size = goods.entry(number)?.size;
        let mut chunker = Chunker::new(goods.open(number, 0)?, Lengths::of_file(size));
        for at in 0..list.len() {
            let chunk = chunker.next().map_err(here("read a file of an image"))?.unwrap_or_default();
            if wanted.contains(&(before + at)) {
                self.write(chunk)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        for piece in bytes.chunks(TOLD) {
            self.out.write(piece)?;
            let before = self.done;
            self.done += piece.len() as u64;
            if self.done / TOLD as u64 != before / TOLD as u64 {
                (self.progress)(Progress::Sending { done: self.done, of: self.of.max(self.done) });
            }
        }
        Ok(())
    }
}

/// Bytes after which progress is told again.
const TOLD: usize = 256 << 10;
