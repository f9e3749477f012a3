// Makes the client's code from the proto, without protoc.
fn main() {
    let files = protox::compile(["geolookup/v1/geolookup.proto"], ["../../../proto"]).unwrap();
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".") // so that a request that is made again is not copied
        .compile_fds(files)
        .unwrap();
    println!("cargo:rerun-if-changed=../../../proto");
}
