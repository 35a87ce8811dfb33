"""Reading VCF."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pysam
import pytest

from longscan.core.errors import UserError
from longscan.genomics.data.contigs import ContigNames
from longscan.genomics.data.variants import VcfRecord, open_vcf

LENGTHS = {"c1": 100, "c2": 50}
HEADER = (
    "##fileformat=VCFv4.2\n##contig=<ID=c1,length=100>\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS1\n"
)
ROWS = [
    "c1\t5\t.\tA\tC,<DEL>,*\t1e3\tPASS\tDP=3\tGT\t0/1",
    "c1\t5\trs1;rs2\tacg\t.\t.\t.\t.\tGT\t./.",
    "chrc2\t50\t.\tG\tR,A[c1:5[,GT\t.\tq10\tAF=0.10\tGT\t0/1",
]


def vcf(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "a.vcf"
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def read(path: Path, **options: bool) -> list[VcfRecord]:
    contigs = ContigNames(LENGTHS, "genome.fa")
    with open_vcf(path, contigs, LENGTHS, **options) as reader:
        return list(reader)


def test_every_record_and_every_alternative_in_order(tmp_path: Path) -> None:
    path = vcf(tmp_path, *ROWS)
    records = read(path)
    assert [record.text for record in records] == ROWS
    assert [(r.line, r.number, r.chrom, r.contig, r.pos, r.identifier, r.ref, r.alts) for r in records] == [
        (5, 1, "c1", "c1", 5, ".", "A", ("C", "<DEL>", "*")),
        (6, 2, "c1", "c1", 5, "rs1;rs2", "acg", (".",)),
        (7, 3, "chrc2", "c2", 50, ".", "G", ("R", "A[c1:5[", "GT")),
    ]
    variants = [variant for record in records for variant in record.variants()]
    assert [(v.contig, v.pos, v.ref, v.alt, v.record, v.alt_number) for v in variants][-2:] == [
        ("c2", 50, "G", "A[c1:5[", 3, 2),
        ("c2", 50, "G", "GT", 3, 3),
    ]
    with pysam.VariantFile(str(path)) as parsed:
        assert [(r.contig, r.pos, r.ref, r.alts or (".",)) for r in parsed] == [
            (r.chrom, r.pos, r.ref, r.alts) for r in records
        ]


def test_plain_gzip_and_bgzip_are_the_same(tmp_path: Path) -> None:
    path = vcf(tmp_path, *ROWS)
    (tmp_path / "gzip.vcf.gz").write_bytes(gzip.compress(path.read_bytes()))
    pysam.tabix_compress(str(path), str(tmp_path / "bgzip.vcf.gz"))
    assert read(path) == read(tmp_path / "gzip.vcf.gz") == read(tmp_path / "bgzip.vcf.gz")
    assert read(vcf(tmp_path)) == []


def test_htslib_is_quiet_and_as_talkative_afterwards_as_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = pysam.set_verbosity(3)
    assert pysam.get_verbosity() == 3
    with pytest.raises(UserError):
        read(vcf(tmp_path, "c1\tx\t.\tA\tC\t.\t.\t.\tGT\t0/1"))
    read(vcf(tmp_path, *ROWS))  # c2 and q10 are not in the header, of which htslib warns
    assert pysam.set_verbosity(before) == 3
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "rows, message",
    [
        (["c1\tx\t.\tA\tC\t.\t.\t.\tGT\t0/1"], r"a\.vcf:5: record 1: is not a VCF record"),
        ([ROWS[0], "c1\t6\t.\tA"], r"a\.vcf:6: record 2: is not a VCF record"),
        ([ROWS[0], ""], r"a\.vcf:6: record 2: is not a VCF record"),
        ([ROWS[0], "c1\t6\t.\tA\tC\t.\t.\t."], r"a\.vcf:6: record 2: 8 tab-separated columns, the header has 10"),
        (["c1 5 . A C . . ."], r"a\.vcf:5: record 1: is not a VCF record"),
        (["c1\t5\t.\tA\tC,\t.\t.\t.\tGT\t0/1"], r"record 1: POS '5' or ALT 'C,' is not well formed"),
        (
            ["c1\t101\t.\tA\tC\t.\t.\t.\tGT\t0/1"],
            r"record 1: c1:101 is not on contig 'c1', which has 100 bases; .*build",
        ),
        (["c1\t0\t.\tA\tC\t.\t.\t.\tGT\t0/1"], r"record 1: c1:0 is not on contig 'c1'"),
        (["c9\t1\t.\tA\tC\t.\t.\t.\tGT\t0/1"], r"record 1: contig 'c9' is not in genome\.fa \(nearest: c[12], c[12]\)"),
        ([ROWS[0], "c1\t4\t.\tA\tC\t.\t.\t.\tGT\t0/1"], r"record 2: c1:4 comes after c1:5, .*bcftools sort.*--allow"),
        ([ROWS[0], ROWS[2], ROWS[0]], r"a\.vcf:7: record 3: contig 'c1' comes a second time, .*bcftools sort"),
    ],
)
def test_wrong_records_are_named(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(vcf(tmp_path, *rows))
    assert "\n" not in str(caught.value)


def test_any_order_can_be_allowed(tmp_path: Path) -> None:
    records = read(vcf(tmp_path, ROWS[2], ROWS[0], ROWS[2]), allow_unsorted=True)
    assert [record.contig for record in records] == ["c2", "c1", "c2"]
    earlier = read(vcf(tmp_path, ROWS[0], ROWS[0].replace("\t5\t", "\t2\t")), allow_unsorted=True)
    assert [record.pos for record in earlier] == [5, 2]
    with pytest.raises(UserError, match="101 is not on contig"):
        read(vcf(tmp_path, ROWS[2], ROWS[0].replace("\t5\t", "\t101\t")), allow_unsorted=True)


@pytest.mark.parametrize(
    "content, message",
    [
        ("".join(f"{row}\n" for row in ROWS), r"does not begin with ##fileformat=VCF"),
        (HEADER.split("\n", 1)[1] + ROWS[0] + "\n", r"does not begin with ##fileformat=VCF"),
        (HEADER.split("#CHROM")[0] + ROWS[0] + "\n", r"its VCF header is not valid"),
        ("##fileformat=VCFv4.2\n", r"its VCF header is not valid|#CHROM line is missing"),
        ("", r"the file is empty"),
        (">c1\nACGT\n", r"does not begin with ##fileformat=VCF"),
    ],
)
def test_files_that_are_no_vcf(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.vcf").write_text(content)
    with pytest.raises(UserError, match=rf"a\.vcf.*({message})"):
        read(tmp_path / "a.vcf")


def test_bcf_is_told_apart(tmp_path: Path) -> None:
    source, target = vcf(tmp_path, ROWS[0].replace("DP=3", ".")), tmp_path / "a.bcf"
    with pysam.VariantFile(str(source)) as parsed, pysam.VariantFile(str(target), "wb", header=parsed.header) as out:
        for record in parsed:
            out.write(record)
    with pytest.raises(UserError, match=r"a\.bcf: is BCF; convert it"):
        read(target)


@pytest.mark.parametrize("pack", ["gzip", "bgzip"])
@pytest.mark.parametrize("cut", [20, 2000])
def test_truncated_files(tmp_path: Path, pack: str, cut: int) -> None:
    rows = [f"c1\t{1 + i // 60}\t{i * 7919 % 10007}\tA\tC\t.\t.\t.\tGT\t0/1" for i in range(6000)]
    path, packed = vcf(tmp_path, *rows), tmp_path / "cut.vcf.gz"
    compress: dict[str, Callable[[], object]] = {
        "gzip": lambda: packed.write_bytes(gzip.compress(path.read_bytes())),
        "bgzip": lambda: pysam.tabix_compress(str(path), str(packed)),
    }
    compress[pack]()
    assert len(read(packed)) == 6000
    packed.write_bytes(packed.read_bytes()[:-cut])
    with pytest.raises(UserError, match=rf"cut\.vcf\.gz: the {pack} file is truncated; copy or download it again"):
        read(packed)
