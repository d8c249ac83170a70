"""Which locales there are: BCP 47 tags of languages that have a name.

ICU takes any tag and answers an unknown one with its root rules, so a misspelt locale would cut
text by the wrong language's rules and nobody would know.
"""

from __future__ import annotations

import re

_TAG = re.compile(
    r"(?P<language>[a-z]{2,3})"
    r"([-_][a-z]{4})?"  # script
    r"([-_]([a-z]{2}|[0-9]{3}))?"  # region
    r"([-_]([a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"  # variants
    r"([-_][a-z0-9]([-_][a-z0-9]{2,8})+)*",  # extensions
    re.ASCII | re.IGNORECASE,
)

# ISO 639-1, all of it.
_TWO_LETTERS = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de
dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id
ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu
lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu
rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to
tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
# Languages of CLDR's locales and of Wikipedia without a two-letter code (ISO 639-3).
_THREE_LETTERS = """
ace agq ain als ang anp arc arn ars ary arz asa asm ast atj awa azb bal ban bar bas bcl bem bew bez
bgc bgn bho bjn blo blt bpy brx bss bug bxr byn cad cch ccp ceb cgg cho chr chy cic ckb cop crh csb
csw cdo dag dav din diq dje doi dsb dua dty dyo ebu ewo ext fil frr frp frc fur gag gan gcr gez glk
gom gor got gsw guc guz hak haw hif hnj hsb hsn ibb ilo inh jam jbo jgo jmc kaa kab kaj kam kbd kbp
kde kea ken kgp khq kkj kln kok koi kpe krc krl ksb ksf ksh kxv lad lag lbe lez lfn lij lkt lld lmo
lrc ltg luo luy lzz mad mai map mas mdf mer mfe mgh mgo mhn mhr mic min mni moh mrj mua mul mus mwl
myv mzn nan nap naq nds new nia nmg nnh nnp nov nqo nso nus nyn nyo osa pag pam pap pcd pcm pdc pfl
pih pis pms pnb pnt prg quc rif rmy rof rue rup rwk sah saq sat sbp scn sco sdh sdn seh ses shi shn
shy sid skr sma smj smn sms smo srn ssy stq syr szl tay tcy teo tet tig tok tpi trv trw tsd tum twq
tyv tzm udm und vai vec vep vls vmw vro vun wae wal war wbp wuu xal xmf xnr xog yav yrl yue zea zgh
"""
_LANGUAGES = frozenset(f"{_TWO_LETTERS} {_THREE_LETTERS}".split())


def is_locale(tag: str) -> bool:
    """Whether `tag` is well-formed after BCP 47 (or ICU's "pt_BR") and its language is known."""
    match = _TAG.fullmatch(tag)
    return match is not None and match["language"].lower() in _LANGUAGES
